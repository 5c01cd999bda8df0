"""Arrays that grow at their end, while those who hold their first rows keep them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def appended(buffer: NDArray[Any], held: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
    """A buffer that begins with the rows held and the new ones: the same one if they fit, else one a bit larger.

    A search may hold the rows in use, which stay as they are; it has never been given those after them.
    """
    before, after = len(held), len(held) + len(new)
    if after > len(buffer):
        room = 0 if before == 0 else max(before // 8, 1024)
        buffer = np.empty((after + room, *held.shape[1:]), held.dtype)
        buffer[:before] = held
    buffer[before:after] = new
    return buffer
