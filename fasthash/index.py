"""Nearest neighbours among float vectors: exact, and by HNSW graph, behind one interface.

Both metrics are Euclidean at heart: `_embed` turns vectors into float64 points, and a distance is the Euclidean one
between points ("l2") or half its square ("cosine"). Every distance that leaves this module comes from `_distances`:
float64, by differences, rounded once to float32. Everything else here only decides which pairs are worth that.
"""

import contextlib
import functools
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from fasthash._storage import read_container, write_container
from fasthash._validation import as_vectors, check_choice, check_int, check_threads
from fasthash.errors import ArgumentError, CorruptFileError, FastHashError

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Hits = tuple[Floats, Ints]
PathLike = str | os.PathLike[str]
Index = TypeVar("Index", bound="_VectorIndex")

METRICS = ("l2", "cosine")
_MAX_DIM = 65536

_QUERIES = 64  # queries of one matrix product; more would not make it faster
_PRODUCTS = 2**18  # products of one block: 1 MiB of float32, so that they stay in the L2 cache
_SAMPLE = 1024  # rows that a search takes its first limit from
_BLOCK = 2**20  # float64 coordinates in one scratch array: 8 MiB, and a thread holds at most a handful of them
_SAME_DIRECTION = 1e-24  # a cosine distance below this is the rounding of float64 normalisation, and returned as 0

_SCAN_ROWS = 5000  # up to so many rows a scan is about as fast as a graph, and exact
_SCAN_FRACTION = 50  # for more than 1/50 of all rows, a scan beats a graph
_TAIL_FRACTION = 8  # a graph is rebuilt when the rows added since exceed 1/8 of its own
_TWINS = 32  # rows of one graph node that are always looked at (of more than that, the first k)


# ---------------------------------------------------------------- distances


def _embed(vectors: NDArray[Any], metric: str, zero_axis: int) -> Doubles:
    """Float64 points (n, d) or, for cosine, unit vectors (n, d + 2).

    The two extra axes are for zero vectors, which have no direction: zero rows go to one and zero queries to the
    other, and so stand at cosine distance 1 from everything.
    """
    points = vectors.astype(np.float64)
    if metric == "l2":
        return points
    norms = np.sqrt(np.einsum("ij,ij->i", points, points))
    zero = norms == 0.0
    points /= np.where(zero, 1.0, norms)[:, np.newaxis]
    return np.concatenate([points, *(zero[:, np.newaxis] * (axis == zero_axis) for axis in (0, 1))], axis=1)


def _embed_rows(vectors: NDArray[Any], metric: str) -> Doubles:
    return _embed(vectors, metric, 0)


def _embed_queries(vectors: NDArray[Any], metric: str) -> Doubles:
    return _embed(vectors, metric, 1)


def _distances(points: Doubles, vectors: Floats, metric: str, of: Ints, to: Ints) -> Floats:
    """The distance of each pair (embedded query ``of[i]``, row ``to[i]``)."""
    out = np.empty(len(of), np.float32)
    step = max(1, _BLOCK // points.shape[1])
    for start in range(0, len(of), step):
        pairs = slice(start, start + step)
        difference = _embed_rows(vectors[to[pairs]], metric)
        difference -= points[of[pairs]]
        squared = np.einsum("ij,ij->i", difference, difference)
        if metric == "l2":
            with np.errstate(over="ignore"):  # beyond float32's range a distance is infinite
                out[pairs] = np.sqrt(squared)
        else:
            out[pairs] = np.where(squared < 2 * _SAME_DIRECTION, 0.0, 0.5 * squared)
    return out


def _pairs(mask: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Where a mask over (query, row) holds, sorted."""
    of, to = np.divmod(np.flatnonzero(mask), mask.shape[1])  # far faster than np.nonzero where few are
    return of, to


def _best(n_queries: int, k: int, of: Ints, to: Ints, distances: Floats) -> Hits:
    """The k nearest pairs of each query, by (distance, row); where there are fewer, infinity and -1 follow."""
    if n_queries == 1 and len(of) >= k:  # the same in fewer steps
        order = np.lexsort((to, distances))[:k]
        return distances[np.newaxis, order], to[np.newaxis, order]
    order = np.lexsort((to, distances, of))
    of, to, distances = of[order], to[order], distances[order]
    rank = np.arange(len(of)) - np.searchsorted(of, np.arange(n_queries))[of]
    kept = rank < k
    where = of[kept], rank[kept]
    best = np.full((n_queries, k), np.inf, np.float32)
    rows = np.full((n_queries, k), -1, np.int64)
    best[where], rows[where] = distances[kept], to[kept]
    return best, rows


# ---------------------------------------------------------------- the exact scan


@dataclass(frozen=True)
class _Rows:
    """What a search looks at: an unchanging snapshot of vectors (n, d) and of what `_terms` says of each (n,)."""

    vectors: Floats
    terms: Floats

    def __len__(self) -> int:
        return len(self.vectors)

    def block(self, start: int, stop: int, subset: Ints | None) -> tuple[Floats, Floats]:
        rows: Any = slice(start, stop) if subset is None else subset[start:stop]
        return self.vectors[rows], self.terms[rows]


def _slack(dim: int, unit: float) -> float:
    """Bounds the relative error of a proxy; ``unit`` is the rounding of its arithmetic.

    A dot product of d terms is off by at most d u |q||x| / (1 - d u), in whatever order it is summed (Higham, Accuracy
    and Stability of Numerical Algorithms, section 3.1); 24 more roundings cover everything around it: norms,
    normalisation, centring, the sum and the bound itself.
    """
    return (dim + 24) * unit / (1 - (dim + 24) * unit)


_SINGLE, _DOUBLE = 2.0**-24, 2.0**-53  # unit roundoffs
_ROUNDED = 1 + 4 * _SINGLE  # covers two true squared distances whose roots round to the same float32


def _terms(vectors: Floats, metric: str) -> Floats:
    """What the float32 proxy needs of each row, NaN where float32 might overflow or vanish."""
    terms = np.empty(len(vectors), np.float32)
    step = max(1, _BLOCK // max(1, vectors.shape[1]))
    for start in range(0, len(vectors), step):
        block = vectors[start : start + step].astype(np.float64)
        squared = np.einsum("ij,ij->i", block, block)
        if metric == "l2":
            term, floor = squared * (1 - _slack(block.shape[1], _SINGLE)), 0.0
        else:
            term, floor = np.where(squared == 0.0, 0.0, 1 / np.sqrt(np.where(squared == 0.0, 1.0, squared))), 1e-30
        safe = (squared == 0.0) | ((squared >= floor) & (squared < 1e36))
        terms[start : start + step] = np.where(safe, term, np.nan)
    return terms


class _Single:
    """Proxies in float32: of the squared distance less |q|^2 (l2), or of minus the cosine.

    A row can only be nearer than a limit if its proxy is at most `bound(limit)`.
    """

    def __init__(self, queries: Floats, metric: str) -> None:
        points = queries.astype(np.float64)
        self._metric, self._slack = metric, _slack(queries.shape[1], _SINGLE)
        self._squared = np.einsum("ij,ij->i", points, points)
        self.safe = metric == "cosine" or bool((self._squared < 1e36).all())
        if metric == "l2":
            self._factors = -2 * queries if self.safe else queries
        else:
            norms = np.sqrt(self._squared)[:, np.newaxis]
            self._factors = (-points / np.where(norms == 0.0, 1.0, norms)).astype(np.float32)

    def proxies(self, vectors: Floats, terms: Floats) -> Floats:
        products: Floats = self._factors @ vectors.T
        if self._metric == "l2":
            products += terms
        else:
            products *= terms
        return products

    def bound(self, limits: Doubles) -> Floats:
        if self._metric == "l2":
            bound = limits**2 * _ROUNDED - self._squared * (1 - self._slack) + 1e-30
        else:
            bound = limits * _ROUNDED - 1 + self._slack + 1e-18
        with np.errstate(over="ignore"):
            return np.nextafter(bound.astype(np.float32), np.float32(np.inf))[:, np.newaxis]


class _Double:
    """The same in float64, on points centred at the queries' median: for what float32 cannot tell apart."""

    def __init__(self, points: Doubles, metric: str) -> None:
        self._metric, self._slack = metric, _slack(points.shape[1], _DOUBLE)
        self._centre = np.median(points, axis=0)
        centred = points - self._centre
        self._squared = np.einsum("ij,ij->i", centred, centred)
        self._factors = -2 * centred

    def proxies(self, vectors: Floats) -> Doubles:
        centred = _embed_rows(vectors, self._metric)
        centred -= self._centre
        squared = np.einsum("ij,ij->i", centred, centred)
        products: Doubles = self._factors @ centred.T
        products += squared * (1 - self._slack)
        return products

    def bound(self, limits: Doubles) -> Doubles:
        # Where float32 has no digits left, distances round to its smallest steps.
        squared = (limits + 1.5e-45) ** 2 if self._metric == "l2" else 2 * (limits + _SAME_DIRECTION)
        return (squared * _ROUNDED - self._squared * (1 - self._slack))[:, np.newaxis]


class _Scan:
    """The exact k nearest rows of a few queries, in bounded memory.

    Block by block, proxies say which rows may be among the k nearest; those get their distance and are offered to the
    best so far, whose k-th distance is the limit for the rows to come.
    """

    def __init__(self, queries: Floats, metric: str, k: int) -> None:
        self._metric, self._k = metric, k
        self._points = _embed_queries(queries, metric)
        self._single = _Single(queries, metric)
        self._pairs: list[tuple[Ints, Ints, Floats]] = []
        self._pending = 0
        self._limits = np.full(len(queries), np.inf)

    @functools.cached_property
    def _double(self) -> _Double:
        return _Double(self._points, self._metric)

    def run(self, rows: _Rows, subset: Ints | None) -> Hits:
        n = len(rows) if subset is None else len(subset)
        step = max(1, min(_PRODUCTS // len(self._points), _BLOCK // self._points.shape[1]))
        for start in range(0, n, step):
            stop = min(start + step, n)
            vectors, terms = rows.block(start, stop, subset)
            of, to = self._candidates(vectors, terms, first=start == 0)
            distances = _distances(self._points, vectors, self._metric, of, to)
            near = distances <= self._limits[of]
            to = to + start if subset is None else subset[to + start]
            self._offer(of[near], to[near], distances[near])
        return self._merge()

    def _candidates(self, vectors: Floats, terms: Floats, first: bool) -> tuple[Ints, Ints]:
        """Pairs (query, row of the block) that may be nearer than the limit, sorted."""
        few = len(self._points) * (2 * self._k + len(vectors) // 16)
        if self._single.safe and not np.isnan(terms).any():
            proxies = self._single.proxies(vectors, terms)
            if first:
                self._seed(proxies, vectors)
            mask = proxies <= self._single.bound(self._limits)
            if np.count_nonzero(mask) <= few:
                return _pairs(mask)
        exact = self._double.proxies(vectors)
        if first:
            self._seed(exact, vectors)
        return _pairs(exact <= self._double.bound(self._limits))

    def _seed(self, proxies: NDArray[Any], vectors: Floats) -> None:
        """The largest distance of any k rows is a limit, and a good one if they are the best of a sample."""
        proxies = proxies[:, : max(self._k, _SAMPLE)]
        n_queries, n = proxies.shape
        if n < self._k:
            return
        to = np.argpartition(proxies, self._k - 1, axis=1)[:, : self._k].ravel()
        of = np.repeat(np.arange(n_queries), self._k)
        seeds = _distances(self._points, vectors, self._metric, of, to)
        np.minimum(self._limits, seeds.reshape(n_queries, self._k).max(axis=1), out=self._limits)

    def _offer(self, of: Ints, to: Ints, distances: Floats) -> None:
        self._pairs.append((of, to, distances))
        self._pending += len(of)
        if self._pending >= len(self._points) * self._k:
            best, rows = self._merge()
            held = rows >= 0
            self._pairs = [(_pairs(held)[0], rows[held], best[held])]
            self._pending = 0
            np.minimum(self._limits, best[:, -1], out=self._limits)

    def _merge(self) -> Hits:
        of, to, distances = (np.concatenate(parts) for parts in zip(*self._pairs, strict=True))
        return _best(len(self._points), self._k, of, to, distances)


def _scan(queries: Floats, rows: _Rows, metric: str, k: int, num_threads: int, subset: Ints | None = None) -> Hits:
    """The exact k nearest of ``rows``, or of a rising ``subset`` of them; blocks of queries share out the threads."""
    n = len(rows) if subset is None else len(subset)
    k = min(k, n)
    if k == 0 or len(queries) == 0:
        return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    size = max(1, min(_QUERIES, -(-len(queries) // num_threads), _BLOCK // k))
    blocks = [queries[start : start + size] for start in range(0, len(queries), size)]

    def one(block: Floats) -> Hits:
        return _Scan(block, metric, k).run(rows, subset)

    if num_threads == 1 or len(blocks) == 1:
        parts = [one(block) for block in blocks]
    else:
        with ThreadPoolExecutor(num_threads) as pool:
            parts = list(pool.map(one, blocks))
    distances, indices = zip(*parts, strict=True)
    return np.concatenate(distances), np.concatenate(indices)


def _as_subset(rows: Any, n: int) -> Ints | None:
    """Row numbers, or a boolean mask over all rows, as rising int64 row numbers."""
    if rows is None:
        return None
    array = np.asarray(rows)
    if array.dtype == np.bool_:
        if array.shape != (n,):
            raise ArgumentError(f"rows: expected a mask of shape ({n},), got {array.shape}")
        return np.flatnonzero(array)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ArgumentError(
            f"rows: expected integers of shape (m,) or a mask, got {array.dtype} of shape {array.shape}"
        )
    if array.size and (array.min() < 0 or array.max() >= n):
        raise ArgumentError(f"rows: expected row numbers in [0, {n}), got {array.min()} to {array.max()}")
    return np.unique(array).astype(np.int64)


def knn_exact(
    queries: Any, vectors: Any, k: int, metric: str = "l2", num_threads: int = -1, rows: Any = None
) -> tuple[Floats, Ints]:
    """The exact k nearest vectors of each query, without an index object.

    queries: float32 (n_queries, d); vectors: float32 (n, d); metric: "l2" (the Euclidean distance itself, not its
    square) or "cosine" (1 - cosine similarity; a zero vector is at distance 1 from everything, itself too);
    rows: None, or integers (m,) or a mask (n,) to look at these rows only.

    Returns distances float32 and indices int64, both (n_queries, min(k, n)), ordered by (distance, index): see
    `FlatIndex`. Raises ArgumentError.
    """
    vectors = as_vectors("vectors", vectors)
    dim = check_int("vectors: dimensions", vectors.shape[1], 1, _MAX_DIM)
    queries = as_vectors("queries", queries, dim)
    k, metric = check_int("k", k, 1), check_choice("metric", metric, METRICS)
    threads, subset = check_threads(num_threads), _as_subset(rows, len(vectors))
    return _scan(queries, _Rows(vectors, _terms(vectors, metric)), metric, k, threads, subset)


# ---------------------------------------------------------------- indexes


class _VectorIndex:
    """What both indexes share: the vectors, and how they are added, seen, saved and loaded."""

    _kind: ClassVar[str]

    def __init__(self, dim: int, metric: str = "l2") -> None:
        self._dim = check_int("dim", dim, 1, _MAX_DIM)
        self._metric = check_choice("metric", metric, METRICS)
        self._adding = threading.Lock()
        self._buffer = _Rows(np.empty((0, self._dim), np.float32), np.empty(0, np.float32))
        self._rows = self._buffer

    @property
    def dim(self) -> int:
        """The number of dimensions."""
        return self._dim

    @property
    def metric(self) -> str:
        """The metric: "l2" or "cosine"."""
        return self._metric

    @property
    def ntotal(self) -> int:
        """The number of vectors held."""
        return len(self._rows)

    @property
    def vectors(self) -> Floats:
        """A read-only view, float32 (ntotal, dim), of the vectors held now."""
        view = self._rows.vectors[:]
        view.flags.writeable = False
        return view

    def __len__(self) -> int:
        return self.ntotal

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dim={self._dim}, metric={self._metric!r}, ntotal={self.ntotal})"

    def add(self, vectors: Any) -> None:
        """Add vectors, float32 (n, dim) or (dim,), finite; their indices go on from ntotal.

        All or none are added, and a search under way in another thread does not see them. Raises ArgumentError.
        """
        new = as_vectors("vectors", vectors, self._dim)
        terms = _terms(new, self._metric)
        with self._adding:
            n, total = len(self._rows), len(self._rows) + len(new)
            if total > len(self._buffer):
                self._grow(max(total, n + n // 2))
            # Snapshots share the buffer, but none reaches beyond row n.
            self._buffer.vectors[n:total], self._buffer.terms[n:total] = new, terms
            self._rows = _Rows(self._buffer.vectors[:total], self._buffer.terms[:total])

    def _grow(self, capacity: int) -> None:
        old = self._rows
        self._buffer = _Rows(np.empty((capacity, self._dim), np.float32), np.empty(capacity, np.float32))
        self._buffer.vectors[: len(old)], self._buffer.terms[: len(old)] = old.vectors, old.terms

    def _check_search(self, queries: Any, k: int, num_threads: int) -> tuple[Floats, int, int]:
        return as_vectors("queries", queries, self._dim), check_int("k", k, 1), check_threads(num_threads)

    def _write(self, path: PathLike, rows: _Rows, meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        meta = {"dim": self._dim, "metric": self._metric, **meta}
        write_container(path, self._kind, meta, {"vectors": rows.vectors, **arrays})

    @classmethod
    def _read(cls: type[Index], path: PathLike, *names: str) -> tuple[Index, dict[str, Any], dict[str, NDArray[Any]]]:
        """An index with the file's vectors; ``names`` of the meta data are handed to the constructor."""
        meta, arrays = read_container(path, cls._kind)
        try:
            index = cls(meta["dim"], meta["metric"], **{name: meta[name] for name in names})
            index.add(arrays.pop("vectors"))
        except (KeyError, ArgumentError) as error:
            raise CorruptFileError(f"{path}: not a {cls._kind} that this fasthash can read: {error}") from error
        return index, meta, arrays


class FlatIndex(_VectorIndex):
    """Exact nearest neighbours by a scan of every vector.

    dim: the number of dimensions; metric: "l2", the Euclidean distance itself (not its square, as some libraries
    have it), or "cosine", 1 - cosine similarity in [0, 2] (a zero vector is at distance 1 from everything, itself too).

    Exact in the strict sense: matrix products in float32 only pick candidates, with a margin that provably covers their
    rounding; candidates are then measured in float64, by differences, rounded to float32 and ordered by (distance,
    index). The products run on NumPy's BLAS, whose own threads are set by its environment (OPENBLAS_NUM_THREADS).
    Scratch memory: some tens of MiB per thread, whatever the number of vectors and queries.
    """

    _kind = "flat-index"

    def search(self, queries: Any, k: int, num_threads: int = -1, rows: Any = None) -> tuple[Floats, Ints]:
        """The k nearest vectors of each query.

        queries: float32 (n_queries, dim) or (dim,), finite; num_threads: blocks of queries searched at a time
        (-1: one per core); rows: None, or integers (m,) or a mask (ntotal,) to look at these rows only.

        Returns distances float32 and indices int64, both (n_queries, min(k, n)) for the n rows looked at, ordered by
        (distance, index). Raises ArgumentError.
        """
        queries, k, threads = self._check_search(queries, k, num_threads)
        held = self._rows
        return _scan(queries, held, self._metric, k, threads, _as_subset(rows, len(held)))

    def save(self, path: PathLike) -> None:
        """Write the index as one checksummed file, whole or not at all."""
        self._write(path, self._rows, {}, {})

    @classmethod
    def load(cls, path: PathLike) -> "FlatIndex":
        """Read an index back; raises CorruptFileError, naming the file, if any byte of it changed."""
        return cls._read(path)[0]


class HNSWIndex(_VectorIndex):
    """Approximate nearest neighbours by a Hierarchical Navigable Small World graph.

    dim, metric: as for `FlatIndex`; M: links of a node (twice as many at the bottom); ef_construction: candidates
    looked at for each node while building; ef: candidates looked at by a search, raised to k where k is more; it can be
    changed at any time. With the default of 100, recall@10 is above .999 in clustered vectors and .93 in 20,000 of 50
    independent normal coordinates, the hardest there are (benchmarks/bench_index.py).

    The vectors themselves are the truth, and the graph is a cache over the first of them, built by nmslib:

    - Distances and their order are exact, as in `FlatIndex`: the graph only proposes candidates. Equal vectors share a
      node, so they are found together, the lowest indices first.
    - Rows added after the graph was built are scanned. When they exceed an eighth of it, the next search (or `save`)
      builds a new graph first; `build` does so at a time of your choosing. Meanwhile searches in other threads scan.
    - Up to 5000 vectors, and for k above a fiftieth of all, the search is a scan, and exact.

    Building is not deterministic: nmslib draws the nodes' levels from an unseeded generator, so two builds may differ
    in the few neighbours they miss. Saving and loading keeps the graph, and with it every result.

    Source: Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using Hierarchical Navigable
    Small World graphs, IEEE TPAMI 42 (2020), 824-836.
    """

    _kind = "hnsw-index"

    def __init__(self, dim: int, metric: str = "l2", M: int = 16, ef_construction: int = 200, ef: int = 100) -> None:
        super().__init__(dim, metric)
        self._M = check_int("M", M, 2, 256)
        self._ef_construction = check_int("ef_construction", ef_construction, 1, 100_000)
        self.ef = ef
        self._graph: _Graph | None = None
        self._building = threading.Lock()

    @property
    def M(self) -> int:
        """Links of a node."""
        return self._M

    @property
    def ef_construction(self) -> int:
        """Candidates looked at for each node while building."""
        return self._ef_construction

    @property
    def ef(self) -> int:
        """Candidates looked at by a search."""
        return self._ef

    @ef.setter
    def ef(self, value: int) -> None:
        self._ef = check_int("ef", value, 1, 100_000)

    def search(self, queries: Any, k: int, num_threads: int = -1) -> tuple[Floats, Ints]:
        """About the k nearest vectors of each query.

        queries: float32 (n_queries, dim) or (dim,), finite; num_threads: -1 for every core, also to build the graph
        if it is due.

        Returns distances float32 and indices int64, both (n_queries, min(k, ntotal)), ordered by (distance, index);
        the distances are those `FlatIndex` gives for the same pairs. Raises ArgumentError.
        """
        queries, k, threads = self._check_search(queries, k, num_threads)
        # If another thread is building, do not wait: what the graph lacks is scanned.
        if self._is_due() and self._building.acquire(blocking=False):
            try:
                self._build(threads)
            finally:
                self._building.release()
        graph = self._graph  # before the rows: a graph never covers more rows than there are
        rows = self._rows
        if graph is None or len(queries) == 0 or k * _SCAN_FRACTION > graph.n_rows:
            return _scan(queries, rows, self._metric, k, threads)
        step = graph.batch(k, self._ef)
        parts = [
            self._search_graph(graph, rows, queries[start : start + step], k, threads)
            for start in range(0, len(queries), step)
        ]
        distances, indices = zip(*parts, strict=True)
        return np.concatenate(distances), np.concatenate(indices)

    def _search_graph(self, graph: "_Graph", rows: _Rows, queries: Floats, k: int, threads: int) -> Hits:
        points = _embed_queries(queries, self._metric)
        of, to = graph.candidates(points, k, self._ef, threads)
        short = np.flatnonzero(np.bincount(of, minlength=len(queries)) < k)
        distances = _distances(points, rows.vectors, self._metric, of, to)
        if len(rows) > graph.n_rows:
            tail = _Rows(rows.vectors[graph.n_rows :], rows.terms[graph.n_rows :])
            near, late = _scan(queries, tail, self._metric, k, threads)
            of = np.concatenate([of, np.repeat(np.arange(len(queries)), late.shape[1])])
            to = np.concatenate([to, late.ravel() + graph.n_rows])
            distances = np.concatenate([distances, near.ravel()])
        best, found = _best(len(queries), k, of, to, distances)
        if len(short):
            best[short], found[short] = _scan(queries[short], rows, self._metric, k, threads)
        return best, found

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
            self._graph = _Graph.build(self._rows.vectors, self._metric, self._M, self._ef_construction, threads)

    def save(self, path: PathLike) -> None:
        """Write vectors and graph as one checksummed file, whole or not at all; builds the graph first if it is due."""
        with self._building:
            if self._is_due():
                self._build(check_threads(-1))
            graph, rows = self._graph, self._rows
        meta: dict[str, Any] = {"M": self._M, "ef_construction": self._ef_construction, "ef": self._ef}
        arrays: dict[str, NDArray[Any]] = {}
        if graph is not None:
            meta["graph"], arrays = graph.dump()
        self._write(path, rows, meta, arrays)

    @classmethod
    def load(cls, path: PathLike) -> "HNSWIndex":
        """Read an index back; raises CorruptFileError, naming the file, if any byte of it changed.

        The same queries give the same results as before. A graph of another nmslib version is built anew when needed.
        """
        index, meta, arrays = cls._read(path, "M", "ef_construction", "ef")
        if "graph" in meta:
            index._graph = _Graph.restore(index._metric, meta["graph"], arrays)
        return index


# ---------------------------------------------------------------- nmslib


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Send file descriptor 2 to nowhere: what C++ prints passes by sys.stderr."""
    try:
        saved = os.dup(2)
    except OSError:  # no stderr at all
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


_importing = threading.Lock()


def _nmslib() -> Any:
    """The module, imported without the notice on instruction sets that it prints, and logging warnings only."""
    with _importing, contextlib.nullcontext() if "nmslib" in sys.modules else _quiet_stderr():
        import nmslib
    logger = logging.getLogger("nmslib")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)
    return nmslib


@dataclass(frozen=True)
class _Frame:
    """Where nmslib's float32 points lie: embedded, centred and scaled, so that float32 resolves and holds them."""

    metric: str
    centre: Doubles
    scale: float

    _FAR: ClassVar[float] = 1e15  # squares still fit float32; the median point is at distance 1

    @classmethod
    def around(cls, vectors: Floats, metric: str) -> "_Frame":
        """A frame from medians of up to 10,000 rows, which no outlier moves far."""
        sample = _embed_rows(vectors[:: -(-len(vectors) // 10_000)], metric)
        centre = np.median(sample, axis=0)
        norms = np.sqrt(((sample - centre) ** 2).sum(axis=1))
        spread = np.median(norms[norms > 0]) if norms.any() else 1.0
        return cls(metric, centre, float(2.0 ** -np.round(np.log2(spread))))

    def points(self, embedded: Doubles) -> Floats:
        """Float32 points; the few that are far out are moved in, which their neighbours do not notice."""
        points = (embedded - self.centre) * self.scale
        if (np.abs(points) > self._FAR).any():
            points = np.clip(points, -self._FAR, self._FAR)
        return points.astype(np.float32)

    def holds(self, embedded: Doubles, points: Floats) -> NDArray[np.bool_]:
        """The queries a graph can serve: not too far out, and with a direction."""
        if self.metric == "cosine":
            return embedded[:, -1] == 0.0
        return np.asarray((np.abs(points) < self._FAR / 2).all(axis=1))


@dataclass(frozen=True)
class _Twins:
    """Rows whose points are equal share a node of the graph: ``rows[starts[i]:starts[i + 1]]``, rising."""

    starts: Ints
    rows: Ints

    @classmethod
    def find(cls, points: Floats) -> tuple["_Twins | None", Floats]:
        """The nodes' rows and points; None where every row has a node of its own."""
        points = points + np.float32(0)  # no negative zeros: equal points have equal bytes
        packed = points.view(np.dtype((np.void, points.itemsize * points.shape[1])))[:, 0]
        _, first, node, counts = np.unique(packed, return_index=True, return_inverse=True, return_counts=True)
        if len(first) == len(points):
            return None, points
        starts = np.concatenate([[0], np.cumsum(counts)])
        return cls(starts, np.argsort(node, kind="stable")), points[first]

    def expand(self, of: Ints, nodes: Ints, k: int) -> tuple[Ints, Ints]:
        counts = np.minimum(self.starts[nodes + 1] - self.starts[nodes], max(k, _TWINS))
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(of, counts), self.rows[np.repeat(self.starts[nodes], counts) + offsets]


class _Graph:
    """An nmslib HNSW graph over the first ``n_rows`` vectors of an index, never changed once built.

    nmslib checks no dimension, forgets its query-time parameters when loading, returns rows shorter than k, and saves
    another graph than the one it has loaded. So it is given checked points only, ef is set before each search that
    needs another, `candidates` promises no number of them, and a loaded graph keeps its ``file``.
    """

    def __init__(
        self, handle: Any, n_rows: int, frame: _Frame, twins: _Twins | None, file: NDArray[np.uint8] | None = None
    ) -> None:
        self.n_rows = n_rows
        self._handle, self._frame, self._twins, self._file = handle, frame, twins, file
        self._turn = threading.Condition()
        self._searching, self._ef = 0, 0

    @classmethod
    def build(cls, vectors: Floats, metric: str, M: int, ef_construction: int, threads: int) -> "_Graph":
        frame = _Frame.around(vectors, metric)
        step = max(1, _BLOCK // vectors.shape[1])
        blocks = (vectors[start : start + step] for start in range(0, len(vectors), step))
        twins, points = _Twins.find(np.concatenate([frame.points(_embed_rows(block, metric)) for block in blocks]))
        handle = _nmslib().init(method="hnsw", space="l2")
        handle.addDataPointBatch(points)
        handle.createIndex({"M": M, "efConstruction": ef_construction, "indexThreadQty": threads})
        return cls(handle, len(vectors), frame, twins)

    def batch(self, k: int, ef: int) -> int:
        """How many queries to ask at a time, for the candidates to stay in bounded memory."""
        return max(1, _BLOCK // (max(k, ef) * (1 if self._twins is None else max(k, _TWINS))))

    def candidates(self, embedded: Doubles, k: int, ef: int, threads: int) -> tuple[Ints, Ints]:
        """Pairs (query, row) of the best ef candidates of each query, or of k if that is more.

        A query can come back with fewer than k: nmslib may find fewer, and is not believed where floats fail it.
        """
        points, ef = self._frame.points(embedded), max(k, ef)
        with self._searching_with(ef):
            hits = self._handle.knnQueryBatch(points, ef, num_threads=min(threads, len(points)))
        nodes = np.concatenate([nodes for nodes, _ in hits]).astype(np.int64)
        if len(nodes) == ef * len(hits):
            # Of rising distances, those clearly behind the k-th need not be measured again.
            near = np.concatenate([distances for _, distances in hits]).reshape(-1, ef)
            kept = np.flatnonzero(near <= near[:, k - 1 : k] * 1.01 + 1e-9)
            of, nodes = kept // ef, nodes[kept]
        else:
            of = np.repeat(np.arange(len(hits)), [len(nodes) for nodes, _ in hits])
        held = self._frame.holds(embedded, points)
        if not held.all():
            of, nodes = of[held[of]], nodes[held[of]]
        return (of, nodes) if self._twins is None else self._twins.expand(of, nodes, k)

    @contextlib.contextmanager
    def _searching_with(self, ef: int) -> Iterator[None]:
        """Searches share the handle, but ef is a property of the handle: those that want another wait their turn."""
        with self._turn:
            self._turn.wait_for(lambda: self._searching == 0 or self._ef == ef)
            if self._ef != ef:
                self._handle.setQueryTimeParams({"efSearch": ef})
                self._ef = ef
            self._searching += 1
        try:
            yield
        finally:
            with self._turn:
                self._searching -= 1
                self._turn.notify_all()

    def dump(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """The graph as JSON-able facts and arrays."""
        file = self._file
        if file is None:
            with _file_for_nmslib() as path:
                self._handle.saveIndex(str(path))
                file = np.fromfile(path, np.uint8)
        arrays: dict[str, NDArray[Any]] = {"graph": file, "centre": self._frame.centre}
        if self._twins is not None:
            arrays |= {"twin_starts": self._twins.starts, "twin_rows": self._twins.rows}
        return {"n_rows": self.n_rows, "scale": self._frame.scale, "made_by": _maker()}, arrays

    @classmethod
    def restore(cls, metric: str, meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> "_Graph | None":
        """The graph of a file whose checksum was right; None if this nmslib may not understand it."""
        if meta["made_by"] != _maker():
            return None
        handle = _nmslib().init(method="hnsw", space="l2")
        with _file_for_nmslib() as path:
            arrays["graph"].tofile(path)
            handle.loadIndex(str(path))
        own = {name: array.copy() for name, array in arrays.items()}  # not views of the whole container
        twins = _Twins(own["twin_starts"], own["twin_rows"]) if "twin_rows" in own else None
        return cls(handle, meta["n_rows"], _Frame(metric, own["centre"], meta["scale"]), twins, own["graph"])


@contextlib.contextmanager
def _file_for_nmslib() -> Iterator[Path]:
    """A place for the file that nmslib insists on."""
    with tempfile.TemporaryDirectory(prefix="fasthash-") as folder:
        try:
            yield Path(folder) / "graph"
        except (OSError, RuntimeError) as error:  # nmslib raises RuntimeError when a file cannot be written
            raise FastHashError(f"{folder}: cannot keep a graph here for the moment: {error}") from error


def _maker() -> str:
    return f"nmslib {_nmslib().__version__}, {sys.byteorder}-endian"
