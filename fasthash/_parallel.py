"""Threads over shares of one job."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def map_shares(work: Callable[[int], T], shares: int) -> list[T]:
    """``[work(0), ..., work(shares - 1)]``, a thread each; the calling thread takes the first share itself.

    Waking a thread costs as much as a short job, so one share costs nothing extra.
    """
    if shares <= 1:
        return [work(0)]
    with ThreadPoolExecutor(shares - 1) as pool:
        others = [pool.submit(work, share) for share in range(1, shares)]
        return [work(0), *(other.result() for other in others)]
