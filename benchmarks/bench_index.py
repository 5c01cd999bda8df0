"""The exact scan of float vectors beside faiss, in the same run.

    python -m pytest -s benchmarks/bench_index.py

20,000 clustered vectors of 50 dimensions, k = 10, one thread. Ratios go into ``extra_info`` whichever way they fall:
below 1 the peer is faster. faiss scans in float32 and leaves ties to chance; for many queries at once it multiplies
matrices.
"""

import itertools

import pytest

from benchmarks.bench_hnsw import DIM, K, make_vectors
from fasthash.index import FlatIndex

N = 20_000


def in_turn(search, batches):
    """A call without arguments that searches for the next batch each time."""
    rest = itertools.cycle(batches)
    return lambda: search(next(rest))


@pytest.mark.parametrize("batch", [1, 64])
def test_flat(benchmark, timed_in_turns, batch):
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(1)
    vectors, queries = make_vectors("clustered", N)
    ours, peer = FlatIndex(DIM), faiss.IndexFlatL2(DIM)
    ours.add(vectors)
    peer.add(vectors)
    batches = [queries[start : start + batch] for start in range(0, len(queries) - batch + 1, batch)]

    def search(some):
        return ours.search(some, K, num_threads=1)

    times = timed_in_turns(
        min(len(batches), 300),
        fasthash=in_turn(search, batches),
        faiss=in_turn(lambda some: peer.search(some, K), batches),
    )
    benchmark.pedantic(search, (batches[0],), rounds=3)
    benchmark.extra_info.update(
        us_per_query=round(1e6 * times["fasthash"] / batch, 1),
        faiss_us_per_query=round(1e6 * times["faiss"] / batch, 1),
        times_faster_than_faiss=round(times["faiss"] / times["fasthash"], 2),
    )
    print(f"\n{benchmark.extra_info}")
