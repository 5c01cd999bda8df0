"""Nearest neighbours among float vectors: exact, and by HNSW graph, behind one interface.

Every distance that leaves this module comes from one kernel (csrc/vectors.h says which sum it is): float64, rounded
once to float32, the same bits for the same two vectors wherever they are met. A graph only proposes rows.
"""

import os
import threading
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from fasthash._graph import Graph
from fasthash._scan import Floats, Ints, decode, nearest, within
from fasthash._storage import read_container, write_container
from fasthash._validation import as_subset, as_vectors, check_choice, check_int, check_threads
from fasthash._vectors import METRIC_CODES, ROW_BITS
from fasthash.errors import ArgumentError, CorruptFileError

PathLike = str | os.PathLike[str]
Index = TypeVar("Index", bound="FlatIndex")

METRICS = tuple(METRIC_CODES)
_MAX_DIM = 65536
_MAX_ROWS = 1 << ROW_BITS

_SCAN_ROWS = 5000  # up to so many rows a scan is about as fast as a graph, and exact
_SCAN_FRACTION = 50  # for more than 1/50 of all rows, a scan beats a graph
_TAIL_FRACTION = 8  # a graph is rebuilt when the rows added since exceed 1/8 of its own


def _as_subset(rows: Any, n: int) -> Ints | None:
    """What `as_subset` makes of ``rows``, as row numbers; None for all of them."""
    subset = as_subset(rows, n)
    if not isinstance(subset, slice):
        return subset
    return None if rows is None else np.arange(subset.start, subset.stop)


def _check_rows(n: int) -> int:
    if n > _MAX_ROWS:
        raise ArgumentError(f"vectors: expected at most {_MAX_ROWS} rows in all, got {n}")
    return n


def knn_exact(
    queries: Any, vectors: Any, k: int, metric: str = "l2", num_threads: int = -1, rows: Any = None
) -> tuple[Floats, Ints]:
    """The exact k nearest vectors of each query, without an index object.

    queries: float32 (n_queries, d); vectors: float32 (n, d); metric: "l2" (the Euclidean distance itself, not its
    square) or "cosine" (1 - cosine similarity; a zero vector is at distance 1 from everything, itself too);
    rows: None, or integers (m,), a mask (n,) or a slice to look at these rows only.

    Returns distances float32 and indices int64, both (n_queries, min(k, n)), ordered by (distance, index): see
    `FlatIndex`. Raises ArgumentError.
    """
    vectors = as_vectors("vectors", vectors)
    n, dim = _check_rows(len(vectors)), check_int("vectors: dimensions", vectors.shape[1], 1, _MAX_DIM)
    queries = as_vectors("queries", queries, dim)
    k, metric, threads = check_int("k", k, 1), check_choice("metric", metric, METRICS), check_threads(num_threads)
    return decode(nearest(queries, vectors, metric, k, threads, _as_subset(rows, n)))


# ---------------------------------------------------------------- indexes


class FlatIndex:
    """Exact nearest neighbours by a scan of every vector.

    dim: the number of dimensions; metric: "l2", the Euclidean distance itself (not its square, as some libraries
    have it), or "cosine", 1 - cosine similarity in [0, 2] (a zero vector is at distance 1 from everything, itself too).

    Exact in the strict sense: every distance is a float64 sum over the differences, rounded once to float32, and hits
    are ordered by (distance, index). It is the same on every host and for any number of threads.
    """

    _kind: ClassVar[str] = "flat-index"
    _options: ClassVar[tuple[str, ...]] = ("dim", "metric")  # the constructor's, kept in files

    def __init__(self, dim: int, metric: str = "l2") -> None:
        self.dim = check_int("dim", dim, 1, _MAX_DIM)
        self.metric = check_choice("metric", metric, METRICS)
        self._adding = threading.Lock()
        self._buffer = np.empty((0, self.dim), np.float32)
        self._vectors = self._buffer  # the rows in use; replaced as a whole, so that a search may keep the one it took

    @property
    def ntotal(self) -> int:
        """The number of vectors held."""
        return len(self._vectors)

    @property
    def vectors(self) -> Floats:
        """A read-only view, float32 (ntotal, dim), of the vectors held now."""
        view = self._vectors[:]
        view.flags.writeable = False
        return view

    def __len__(self) -> int:
        return self.ntotal

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dim={self.dim}, metric={self.metric!r}, ntotal={self.ntotal})"

    def add(self, vectors: Any) -> None:
        """Add vectors, float32 (n, dim) or (dim,), finite; their indices go on from ntotal.

        All or none are added, and a search under way in another thread does not see them. Raises ArgumentError.
        """
        new = as_vectors("vectors", vectors, self.dim)
        with self._adding:
            n, total = self.ntotal, _check_rows(self.ntotal + len(new))
            if total > len(self._buffer):
                grown = np.empty((max(total, n + n // 2), self.dim), np.float32)
                grown[:n] = self._vectors
                self._buffer = grown
            self._buffer[n:total] = new  # no search has been given these rows yet
            self._vectors = self._buffer[:total]

    def search(self, queries: Any, k: int, num_threads: int = -1, rows: Any = None) -> tuple[Floats, Ints]:
        """The k nearest vectors of each query.

        queries: float32 (n_queries, dim) or (dim,), finite; num_threads: -1 for every core; rows: None, or integers
        (m,), a mask (ntotal,) or a slice to look at these rows only.

        Returns distances float32 and indices int64, both (n_queries, min(k, n)) for the n rows looked at, ordered by
        (distance, index). Raises ArgumentError.
        """
        held, queries = self._vectors, as_vectors("queries", queries, self.dim)
        k, threads = check_int("k", k, 1), check_threads(num_threads)
        return decode(nearest(queries, held, self.metric, k, threads, _as_subset(rows, len(held))))

    def range_search(self, queries: Any, radius: float, num_threads: int = -1) -> tuple[Ints, Floats, Ints]:
        """Every vector at most ``radius`` away from each query: exact, whatever the index.

        queries: float32 (n_queries, dim) or (dim,), finite; radius: at least 0, in the metric's own unit, inclusive.

        Returns ``(limits, distances, indices)``: int64 (n_queries + 1,), float32 (n_hits,), int64 (n_hits,). The hits
        of query i are ``distances[limits[i]:limits[i + 1]]``, and the same of ``indices``, ordered by (distance,
        index). Raises ArgumentError.
        """
        held, queries, threads = self._vectors, as_vectors("queries", queries, self.dim), check_threads(num_threads)
        if not (isinstance(radius, (int, float, np.number)) and radius >= 0):
            raise ArgumentError(f"radius: expected a number of at least 0, got {radius!r}")
        hits = [within(query, held, self.metric, np.float32(radius), threads) for query in queries]
        limits = np.concatenate([[0], np.cumsum([len(found) for found in hits], dtype=np.int64)])
        distances, indices = decode(np.concatenate([np.empty(0, np.uint64), *hits]))
        return limits.astype(np.int64), distances, indices

    def save(self, path: PathLike) -> None:
        """Write the index as one checksummed file, whole or not at all; a graph that is due is built first."""
        meta, arrays = self._extras()  # before the vectors: a graph never covers more rows than there are
        meta |= {name: getattr(self, name) for name in self._options}
        write_container(path, self._kind, meta, {"vectors": self._vectors, **arrays})

    @classmethod
    def load(cls: type[Index], path: PathLike) -> Index:
        """Read an index back; raises CorruptFileError, naming the file, if any byte of it changed.

        The same queries give the same results as before.
        """
        meta, arrays = read_container(path, cls._kind)
        try:
            index = cls(**{name: meta[name] for name in cls._options})
            index.add(arrays["vectors"])
            index._restore(meta, arrays)
        except (KeyError, ArgumentError) as error:
            raise CorruptFileError(f"{path}: not a {cls._kind} that this fasthash can read: {error}") from error
        return index

    def _extras(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """What a file holds beyond the options and the vectors."""
        return {}, {}

    def _restore(self, meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        """Take the extras back."""


class HNSWIndex(FlatIndex):
    """Approximate nearest neighbours by a Hierarchical Navigable Small World graph.

    dim, metric: as for `FlatIndex`; M: links of a node (twice as many at the bottom); ef_construction: candidates
    looked at for each node while building; ef: candidates looked at by a search, raised to k where k is more; it can be
    changed at any time. With the default of 100 next to no neighbour is missed in clustered vectors, and some are
    in vectors of independent normal coordinates, the hardest there are (docs/recall-speed.png).

    The vectors themselves are the truth, and the graph is a cache over the first of them, built by nmslib:

    - Distances and their order are exact, as in `FlatIndex`: the graph only proposes candidates.
    - Rows that the graph does not hold are scanned: copies of rows that it holds, zero vectors, for l2 those below
      1e-15 or above 1e15, and rows added since it was built. When these exceed an eighth of it, the next search (or
      `save`) builds a new graph first; `build` does so at a time of your choosing. Searches in other threads go on.
    - Up to 5000 vectors, and for k above a fiftieth of all, the search is a scan, and exact.

    Building is not deterministic: nmslib draws the nodes' levels from an unseeded generator, so two builds may differ
    in the few neighbours they miss. Saving and loading keeps the graph, and with it every result.

    Source: Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using Hierarchical Navigable
    Small World graphs, IEEE TPAMI 42 (2020), 824-836.
    """

    _kind = "hnsw-index"
    _options = ("dim", "metric", "M", "ef_construction", "ef")

    def __init__(self, dim: int, metric: str = "l2", M: int = 16, ef_construction: int = 200, ef: int = 100) -> None:
        super().__init__(dim, metric)
        self.M = check_int("M", M, 2, 256)
        self.ef_construction = check_int("ef_construction", ef_construction, 1, 100_000)
        self.ef = ef
        self._graph: Graph | None = None
        self._building = threading.Lock()

    @property
    def ef(self) -> int:
        """Candidates looked at by a search."""
        return self._ef

    @ef.setter
    def ef(self, value: int) -> None:
        self._ef = check_int("ef", value, 1, 100_000)

    def search(self, queries: Any, k: int, num_threads: int = -1, rows: Any = None) -> tuple[Floats, Ints]:
        """About the k nearest vectors of each query, or exactly those among ``rows``.

        Arguments, returns and errors are those of `FlatIndex.search`, and so are the distances of the same pairs; the
        threads also build the graph if it is due.
        """
        queries, k = as_vectors("queries", queries, self.dim), check_int("k", k, 1)
        threads = check_threads(num_threads)
        # If another thread is building, do not wait: what the graph lacks is scanned.
        if self._is_due() and self._building.acquire(blocking=False):
            try:
                if self._is_due():  # still: one that ended just now need not be repeated
                    self._build(threads)
            finally:
                self._building.release()
        graph = self._graph  # before the vectors: a graph never covers more rows than there are
        vectors = self._vectors
        if graph is None or rows is not None or k * _SCAN_FRACTION > graph.n_nodes:
            return super().search(queries, k, threads, rows)
        keys, failed = graph.search(queries, vectors, k, max(k, self._ef), threads)
        if len(failed):
            keys[failed] = nearest(queries[failed], vectors, self.metric, k, threads)
        return decode(keys)

    def build(self, num_threads: int = -1) -> None:
        """Build the graph over all vectors now, if any are not in it yet and there are more than 5000."""
        threads = check_threads(num_threads)
        with self._building:
            if self._graph is None or self._graph.n_rows < self.ntotal:
                self._build(threads)

    def _is_due(self) -> bool:
        covered = 0 if self._graph is None else self._graph.n_rows
        return self.ntotal - covered > max(_SCAN_ROWS, covered // _TAIL_FRACTION)

    def _build(self, threads: int) -> None:
        if self.ntotal > _SCAN_ROWS:
            self._graph = Graph.build(self._vectors, self.metric, self.M, self.ef_construction, threads)

    def _extras(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        with self._building:
            if self._is_due():
                self._build(check_threads(-1))
            graph = self._graph
        return ({}, {}) if graph is None else graph.for_file()

    def _restore(self, meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        if "links" in arrays:  # what older files hold instead is built anew
            self._graph = Graph.from_file(meta, arrays, self._vectors, self.metric)
