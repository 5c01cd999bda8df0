"""Compiles the Numba kernels that shipped encoders and the simulator need: a step of the build (setup.py).

They are kept as those of any user are, and setup.py says in which folder.
"""

from pathlib import Path

import numpy as np

from fasthash import _machine_code
from fasthash.descriptor import GridHistogram
from fasthash.solar import simulator
from fasthash.solar.field_map import field_map
from fasthash.solar.magnetogram import Disk

if __name__ == "__main__":
    _machine_code.BUILT = Path("not what an earlier build left")
    image = np.zeros((8, 8), np.float32)
    GridHistogram().transform(image)
    field_map(image, Disk(3.5, 3.5, 4.0, 0.0))
    simulator._draw()
