"""The grid histogram of one 4096 x 4096 float32 magnetogram beside its peers and the cost of one pass (numpy.max).

python -m pytest -s benchmarks/bench_descriptor.py
"""

from itertools import pairwise

import numpy as np
import pytest

import fasthash as fh

SIZE = 4096
EDGES = np.linspace(0, SIZE, 6).astype(int)
CELLS = [(slice(a, b), slice(c, d)) for a, b in pairwise(EDGES) for c, d in pairwise(EDGES)]


@pytest.fixture(scope="module")
def magnetogram():
    """A noisy disk with some strong field, NaN off it."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    image = rng.normal(0, 10, (SIZE, SIZE)).astype(np.float32)
    image += rng.normal(0, 400, (SIZE, SIZE)).astype(np.float32) * (rng.random((SIZE, SIZE)) < 0.05)
    image[np.hypot(x, y) > 0.47 * SIZE] = np.nan
    return image


def compare(benchmark, timed_in_turns, ours, **peers):
    """Put the median milliseconds of each into extra_info, and the peers' as multiples of ours."""
    medians = timed_in_turns(ours=ours, **peers)
    for name, seconds in medians.items():
        benchmark.extra_info[f"{name}_ms"] = round(1e3 * seconds, 3)
        if name != "ours":
            benchmark.extra_info[f"{name}_by_ours"] = round(seconds / medians["ours"], 2)
    benchmark(ours)
    print(f"\n{benchmark.extra_info}")


def test_one_thread(benchmark, timed_in_turns, magnetogram):
    fast_histogram = pytest.importorskip("fast_histogram")
    boost_histogram = pytest.importorskip("boost_histogram")
    grid = fh.GridHistogram()
    expected = grid.transform(magnetogram)[0]

    def by_fast_histogram():
        return [fast_histogram.histogram1d(magnetogram[cell], 16, (-1000, 1000)) for cell in CELLS]

    def by_boost_histogram():
        axis = boost_histogram.axis.Regular(16, -1000, 1000)
        return [boost_histogram.Histogram(axis).fill(magnetogram[cell].ravel()).values() for cell in CELLS]

    for peer in (by_fast_histogram, by_boost_histogram):
        # The peers multiply where numpy.histogram compares, so pixels on an edge may fall one bin aside.
        assert np.abs(np.concatenate(peer()) - expected).sum() <= 1e-5 * expected.sum()
    compare(
        benchmark,
        timed_in_turns,
        lambda: grid.transform(magnetogram, num_threads=1),
        fast_histogram=by_fast_histogram,
        boost_histogram=by_boost_histogram,
        numpy_max=lambda: np.max(magnetogram),
    )


def test_two_threads(benchmark, timed_in_turns, magnetogram):
    grid = fh.GridHistogram()
    compare(
        benchmark,
        timed_in_turns,
        lambda: grid.transform(magnetogram, num_threads=2),
        numpy_max=lambda: np.max(magnetogram),
    )
