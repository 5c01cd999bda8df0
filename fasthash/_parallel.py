"""Threads over the jobs of one call."""

import _thread
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

J = TypeVar("J")
R = TypeVar("R")


def map_jobs(work: Callable[[J], R], jobs: Sequence[J], threads: int) -> list[R]:
    """``[work(job) for job in jobs]`` on so many threads; the first error is raised when all have ended.

    The calling thread is one of them, and whoever is free takes the next job: waking a thread costs as much as a short
    job, and a core that is slow or late then does fewer. The threads live as long as the call, so a fork meets none.
    """
    results: list[Any] = [None] * len(jobs)
    errors: list[BaseException] = []
    waiting = iter(enumerate(jobs))

    def take() -> None:
        try:
            for i, job in waiting:
                results[i] = work(job)
        except BaseException as error:
            errors.append(error)

    # threading.Thread waits until its thread runs, which on a core that sleeps is as long as a whole job.
    ends = [_start(take) for _ in range(min(threads, len(jobs)) - 1)]
    take()
    for end in ends:
        end.acquire()
    if errors:
        raise errors[0]
    return results


def _start(work: Callable[[], None]) -> _thread.LockType:
    """Run ``work`` on a new thread; the lock that comes back can be had when it is done."""
    end = _thread.allocate_lock()
    end.acquire()

    def run() -> None:
        work()
        end.release()

    _thread.start_new_thread(run, ())
    return end
