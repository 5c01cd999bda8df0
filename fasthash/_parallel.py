"""Threads over the jobs of one call."""

import threading
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


def fold_jobs(
    start: Callable[[], Callable[[J], R]], jobs: Sequence[J], add: Callable[[R], object], threads: int
) -> None:
    """``add(work(job))`` for every job, on so many threads; ``start()`` gives each thread its ``work``.

    Results are added in the order of the jobs, one at a time, so that sums of floats do not depend on the threads.
    """
    waiting = iter(enumerate(jobs))
    done: dict[int, R] = {}
    lock = threading.Lock()
    due = 0

    def take(_: int) -> None:
        nonlocal due
        work = start()
        for i, job in waiting:
            result = work(job)
            with lock:
                done[i] = result
                while due in done:
                    add(done.pop(due))
                    due += 1

    threads = min(threads, len(jobs))
    map_jobs(take, range(threads), threads)
