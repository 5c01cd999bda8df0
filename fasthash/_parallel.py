"""Threads over the jobs of one call."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

J = TypeVar("J")
R = TypeVar("R")


def map_jobs(work: Callable[[J], R], jobs: Sequence[J], threads: int) -> list[R]:
    """``[work(job) for job in jobs]`` on so many threads.

    The calling thread is one of them, and whoever is free takes the next job: waking a thread costs as much as a short
    job, and a core that is slow or late then does fewer. The threads live as long as the call, so a fork meets none.
    """
    results: list[Any] = [None] * len(jobs)
    waiting = iter(enumerate(jobs))

    def take() -> None:
        for i, job in waiting:
            results[i] = work(job)

    helpers = min(threads, len(jobs)) - 1
    if helpers < 1:
        take()
        return results
    with ThreadPoolExecutor(helpers) as pool:
        others = [pool.submit(take) for _ in range(helpers)]
        take()
        for other in others:
            other.result()
    return results
