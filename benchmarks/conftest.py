"""How benchmarks compare: contenders take turns, so that noise on a shared machine falls on all alike."""

import time

import pytest


@pytest.fixture
def timed_in_turns():
    """A function of named calls that gives the median seconds of each, after one call to warm up."""

    def measure(rounds=15, **calls):
        seconds = {name: [] for name in calls}
        for _ in range(rounds + 1):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - start)
        return {name: sorted(times[1:])[rounds // 2] for name, times in seconds.items()}

    return measure
