"""Threads over jobs: order, errors, and that nothing goes on after the call."""

import threading

import pytest

from fasthash import _parallel
from fasthash._parallel import fold_jobs, map_ahead, map_jobs


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_results_come_in_the_order_of_the_jobs(n, threads):
    assert map_jobs(lambda job: job * job, range(n), threads) == [job * job for job in range(n)]


def test_the_jobs_really_run_side_by_side():
    both = threading.Barrier(2)
    assert sorted(map_jobs(lambda _: both.wait(10), range(2), 2)) == [0, 1]


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_is_raised_when_all_have_ended(threads):
    done = []

    def work(job):
        if job == 1:
            raise ValueError("job 1")
        done.append(job)

    with pytest.raises(ValueError, match="job 1"):
        map_jobs(work, range(6), threads)
    assert 0 in done
    # With one thread the jobs behind the error are left; with more, the others have ended them before it is raised.
    assert sorted(done) == ([0] if threads == 1 else [0, 2, 3, 4, 5])


def test_of_two_errors_that_of_the_first_job_is_raised():
    """Whichever comes first: so a damaged file has the same message every time."""
    second_failed = threading.Event()

    def work(job):
        if job == 0:
            assert second_failed.wait(60)
        else:
            second_failed.set()
        raise ValueError(f"job {job}")

    with pytest.raises(ValueError, match="job 0"):
        map_jobs(work, range(2), 2)


@pytest.mark.parametrize("given", [0, 1])
def test_where_no_more_threads_are_given_those_there_are_do_it_all(given, monkeypatch):
    start, started = _parallel._start, []

    def start_some(work):
        if len(started) == given:
            raise RuntimeError("can't start new thread")
        started.append(work)
        return start(work)

    monkeypatch.setattr(_parallel, "_start", start_some)
    assert map_jobs(abs, range(20), 4) == list(range(20))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 7, 40])
def test_a_fold_adds_in_the_order_of_the_jobs(n, threads):
    added = []
    fold_jobs(lambda job: job * job, range(3, 3 + n), added.append, threads)
    assert added == [job * job for job in range(3, 3 + n)]


@pytest.mark.parametrize("threads", [1, 3])
def test_jobs_without_end_are_taken_a_few_ahead(threads):
    asked = []

    def jobs():
        while True:
            asked.append(len(asked))
            yield asked[-1]

    results = map_ahead(lambda job: job * job, jobs(), threads)
    assert [next(results) for _ in range(20)] == [job * job for job in range(20)]
    assert len(asked) <= 20 + 2 * threads
    results.close()
    assert list(map_ahead(abs, [], threads)) == []


def test_an_error_ends_jobs_that_are_ahead():
    with pytest.raises(ZeroDivisionError):
        list(map_ahead(lambda job: 1 // job, [3, 2, 1, 0, 5], 2))
