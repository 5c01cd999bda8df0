"""Threads over the jobs of one call, and over a long row of them."""

import _thread
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

J = TypeVar("J")
R = TypeVar("R")


def map_jobs(work: Callable[[J], R], jobs: Sequence[J], threads: int) -> list[R]:
    """``[work(job) for job in jobs]`` on so many threads; the error of the first job is raised when all have ended.

    The calling thread is one of them, and whoever is free takes the next job: waking a thread costs as much as a short
    job, and a core that is slow or late then does fewer. The threads live as long as the call, so a fork meets none.
    Where the system gives fewer threads, those do it all.
    """
    if threads <= 1 or len(jobs) <= 1:
        return [work(job) for job in jobs]
    results: list[Any] = [None] * len(jobs)
    errors: dict[int, BaseException] = {}
    waiting = iter(enumerate(jobs))

    def take() -> None:
        i = -1  # an interrupt may come before any job
        try:
            for i, job in waiting:
                results[i] = work(job)
        except BaseException as error:
            errors[i] = error

    # threading.Thread waits until its thread runs, which on a core that sleeps is as long as a whole job.
    ends: list[_thread.LockType] = []
    with contextlib.suppress(RuntimeError):
        ends.extend(_start(take) for _ in range(min(threads, len(jobs)) - 1))
    take()
    for end in ends:
        end.acquire()
    if errors:
        raise errors[min(errors)]
    return results


def fold_jobs(work: Callable[[J], R], jobs: Sequence[J], add: Callable[[R], object], threads: int) -> None:
    """``add(work(job))`` for every job: the work on so many threads, the sums in the order of the jobs, one at a time.

    So sums of floats do not depend on the threads. An error is raised when all have ended, as by `map_jobs`.
    """
    done: dict[int, R] = {}
    lock = _thread.allocate_lock()
    due = 0

    def work_and_add(i: int) -> None:
        nonlocal due
        result = work(jobs[i])
        with lock:
            done[i] = result
            while due in done:
                add(done.pop(due))
                due += 1

    map_jobs(work_and_add, range(len(jobs)), threads)


def _start(work: Callable[[], None]) -> _thread.LockType:
    """Run ``work`` on a new thread; the lock that comes back can be had when it is done."""
    end = _thread.allocate_lock()
    end.acquire()

    def run() -> None:
        work()
        end.release()

    _thread.start_new_thread(run, ())
    return end


def map_ahead(work: Callable[[J], R], jobs: Iterable[J], threads: int) -> Iterator[R]:
    """``map(work, jobs)`` on threads, in order, never more than a few jobs ahead of what was taken."""
    rest = iter(jobs)
    pool = ThreadPoolExecutor(threads)
    try:
        futures = deque(pool.submit(work, job) for job in islice(rest, 2 * threads))
        while futures:
            result = futures.popleft().result()
            futures.extend(pool.submit(work, job) for job in islice(rest, 1))
            yield result
    finally:  # whoever takes no more need not wait for what is left
        pool.shutdown(cancel_futures=True)
