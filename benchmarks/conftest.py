"""How benchmarks compare and where their figures go.

Contenders take turns, so that noise on a shared machine falls on all alike. What a benchmark puts into ``extra_info``
is its result: at the end of a run it is compared with the stored one, and with ``--store`` takes its place.
"""

import time
from collections import defaultdict

import pytest

from benchmarks.store import changes, environment, store, stored

MOVED = 1.25  # figures that differ by more are listed: less is noise on a shared machine

_figures = pytest.StashKey()
_environment = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption("--store", action="store_true", help="keep the figures of this run in benchmarks/results/")


def pytest_configure(config):
    if config.getoption("store") and config.getoption("keyword"):
        raise pytest.UsageError("--store: a stored run is one of whole files, without -k")
    config.stash[_figures] = defaultdict(dict)
    config.stash[_environment] = environment()


@pytest.fixture(autouse=True)
def keep_figures(request):
    """Take what a benchmark says of itself over into the results of its file."""
    said = request.getfixturevalue("benchmark").extra_info if "benchmark" in request.fixturenames else {}
    yield
    if said:
        request.config.stash[_figures][_name(request)][request.node.name] = dict(said)


def _name(request):
    """Of the results: that of the file, its large benchmarks apart, since they are run apart."""
    large = request.node.get_closest_marker("large") is not None
    return request.path.stem.removeprefix("bench_") + "_large" * large


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, exitstatus, config):
    for name, figures in config.stash[_figures].items():
        run = stored(name)
        both = changes(run["figures"], figures)
        moved = [(*where, old, new) for *where, old, new in both if not old <= MOVED * new <= MOVED**2 * old]
        if both:
            terminalreporter.section(f"{name}: {len(moved)} of {len(both)} figures moved since {run['date']}")
        for test, figure, old, new in moved:
            terminalreporter.write_line(f"{test}  {figure}: {old} -> {new}")
        if config.getoption("store") and exitstatus == pytest.ExitCode.OK:  # a failed comparison has no figures
            which = "large" if name.endswith("_large") else "not large"
            command = f"python -m pytest benchmarks/bench_{name.removesuffix('_large')}.py -m '{which}' --store"
            terminalreporter.write_line(f"stored: {store(name, command, config.stash[_environment], figures=figures)}")


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
