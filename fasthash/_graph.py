"""Graphs over float vectors: built by nmslib, whose sole importer this is, and walked by csrc/vectors_graph.h.

nmslib checks no dimension, forgets its query-time parameters when loading, saves another graph than the one it has
loaded, and links copies of a point only to each other; its wheel knows no instruction set after SSE2. So it is given
checked and distinct points, its graph is read out of the file that it writes, and a search does without it.
"""

import contextlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._parallel import map_jobs
from fasthash._scan import level_in_use
from fasthash._segments import checked_array
from fasthash._validation import check_int
from fasthash._vectors import GREATEST, LEAST, MAX_LINKS, METRIC_CODES, STRIDE, Nodes
from fasthash.errors import ArgumentError, FastHashError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Links = NDArray[np.uint32]

_MAX_NODES = 2**31 - 1  # nmslib's row numbers are int32
_LINE = 64  # bytes that come from memory together
_FAILED = np.uint64(2**64 - 1)
_NONE = np.empty(0, np.int64)
_PASSES = 64  # in which points are added to a graph
_WORTH_A_THREAD = 16  # queries: about as long as it takes to start one


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """The links of all nodes; those that a node lacks lead to itself.

    links: uint32 (n_nodes, n_links), of the bottom; heights: uint8 (n_nodes,), the level that a node reaches up to;
    upper: uint32 (heights.sum(), n_upper), of the levels above, node by node, from below; entry: a node of the top.
    """

    links: Links
    heights: NDArray[np.uint8]
    upper: Links
    entry: int


class Graph:
    """A graph over the first ``n_rows`` vectors of an index but those ``outside``, int64, rising; it never changes."""

    def __init__(self, vectors: Floats, metric: str, outside: Ints, levels: Levels) -> None:
        self.n_rows, self.outside, self.n_nodes = len(vectors), outside, len(vectors) - len(outside)
        self.metric, self.levels = metric, levels
        inside = np.ones(self.n_rows, np.bool_)
        inside[outside] = False
        rows = np.flatnonzero(inside)
        if not len(rows):
            return
        points = _padded(_as_points(vectors[rows] if len(outside) else vectors, metric))
        upper_at = (np.cumsum(levels.heights, dtype=np.uint32) - levels.heights).astype(np.uint32)
        top = int(levels.heights[levels.entry])
        self._nodes = Nodes(points, rows.astype(np.uint32), levels.links, levels.upper, upper_at, levels.entry, top)

    @classmethod
    def build(cls, vectors: Floats, metric: str, M: int, ef_construction: int, threads: int) -> "Graph":
        """Over all distinct vectors that float32 sums can tell apart; there may be none."""
        points = _as_points(vectors, metric) + np.float32(0)  # no negative zeros: equal points have equal bytes
        packed = points.view(np.dtype((np.void, points.itemsize * points.shape[1])))[:, 0]
        inside = np.zeros(len(points), np.bool_)
        inside[np.unique(packed, return_index=True)[1]] = True  # the first of equal points
        inside &= _are_told_apart(vectors, metric)
        inside[_MAX_NODES:] = False
        levels = _levels_by_nmslib(points[inside], M, ef_construction, threads)
        return cls(vectors, metric, np.flatnonzero(~inside), levels)

    def search(
        self, queries: Floats, vectors: Floats, k: int, ef: int, threads: int
    ) -> tuple[NDArray[np.uint64], Ints]:
        """Keys (n_queries, k) of the nearest that the graph, of k nodes or more, leads to or does not hold; and which
        queries they are not to be trusted for."""
        level, code, extra = level_in_use(), METRIC_CODES[self.metric], self.outside
        if self.n_rows < len(vectors):
            extra = np.concatenate([extra, np.arange(self.n_rows, len(vectors))])
        keys = np.empty((len(queries), k), np.uint64)
        shares = max(1, min(threads, len(queries) // _WORTH_A_THREAD))

        def some(share: int) -> int:
            part = slice(share * len(queries) // shares, (share + 1) * len(queries) // shares)
            failed: int = self._nodes.search(level, code, queries[part], vectors, extra, ef, keys[part])
            return failed

        failed = sum(map_jobs(some, range(shares), shares)) if len(queries) else 0
        return keys, np.flatnonzero(keys[:, 0] == _FAILED) if failed else _NONE

    def for_file(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """What a file says of the graph, in its header and as arrays; `from_file` takes it back."""
        levels, meta = self.levels, {"graph_rows": self.n_rows, "entry": self.levels.entry}
        return meta, {
            "outside": self.outside,
            "links": levels.links,
            "heights": levels.heights,
            "upper": levels.upper,
        }

    @classmethod
    def from_file(
        cls, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], vectors: Floats, metric: str
    ) -> "Graph":
        """The graph of a file, with everything checked that the kernels rely on; raises ArgumentError."""
        n_rows = check_int("graph_rows", meta["graph_rows"], 1, len(vectors))
        outside = checked_array("outside", arrays["outside"], np.int64, len(arrays["outside"]))
        if len(outside) and not (outside[0] >= 0 and (np.diff(outside) > 0).all() and outside[-1] < n_rows):
            raise ArgumentError(f"outside: expected rising row numbers in [0, {n_rows})")
        n = check_int("nodes", n_rows - len(outside), 0, _MAX_NODES)
        heights = checked_array("heights", arrays["heights"], np.uint8, n)
        links = _checked_links("links", arrays["links"], n, np.zeros(n, np.int64), heights)
        above = np.concatenate([np.arange(0), *(np.arange(1, height + 1) for height in heights[heights > 0].tolist())])
        upper = _checked_links("upper", arrays["upper"], len(above), above, heights)
        entry = check_int("entry", meta["entry"], 0, max(n - 1, 0))
        levels = Levels(links.copy(), heights.copy(), upper.copy(), entry)  # not views of the whole container
        return cls(vectors[:n_rows], metric, outside.copy(), levels)


def _checked_links(name: str, links: Any, n: int, levels: Ints, heights: NDArray[np.uint8]) -> Links:
    """Links uint32 (n, any) of which each leads to a node that reaches up to the level it is on."""
    if links.dtype != np.uint32 or links.ndim != 2 or len(links) != n or not 1 <= links.shape[1] <= MAX_LINKS:
        raise ArgumentError(f"{name}: expected uint32 ({n}, 1 to {MAX_LINKS}), got {links.dtype} {links.shape}")
    if links.size and (links.max() >= len(heights) or (heights[links] < levels[:, np.newaxis]).any()):
        raise ArgumentError(f"{name}: expected nodes of the same level")
    return np.asarray(links)


def _as_points(vectors: Floats, metric: str) -> Floats:
    """What a graph sees: unit vectors for cosine."""
    if metric == "l2":
        return vectors
    norms = _norms(vectors)
    norms[norms == 0.0] = 1.0
    return (vectors / norms[:, np.newaxis]).astype(np.float32)


def _are_told_apart(vectors: Floats, metric: str) -> NDArray[np.bool_]:
    """Which vectors float32 sums can tell from others."""
    if metric == "l2":
        greatest = np.maximum.reduce(np.abs(vectors), axis=1)
        return (greatest > LEAST) & (greatest < GREATEST)
    return _norms(vectors) > 0.0


def _norms(vectors: Floats) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.add.reduce(np.square(vectors, dtype=np.float64), axis=1)))


def _padded(points: Floats) -> Floats:
    """Filled up with zeros to whole strides, each row on lines of memory of its own."""
    n, dim = points.shape
    width = -(-dim // STRIDE) * STRIDE
    memory = np.empty(n * width + _LINE // 4, np.float32)
    padded = memory[-memory.ctypes.data % _LINE // 4 :][: n * width].reshape(n, width)
    padded[:, :dim] = points
    padded[:, dim:] = 0
    return padded


# ---------------------------------------------------------------- nmslib


_importing = threading.Lock()

# The head of the file that nmslib writes for its "optimized index", packed. Then, of each node, its point and its links
# on the bottom; then, of each node, the bytes of its links above the bottom and these links, level by level. Links are
# int32: first how many there are, then room for all that there might be.
_HEAD = np.dtype(
    {
        "names": ["optimized", "n_nodes", "node_bytes", "links_at", "point_at", "top", "entry", "n_upper", "n_links"],
        "formats": ["u4", "u4", "u8", "u8", "u8", "i4", "i4", "u8", "u8"],
        "itemsize": 68,
    }
)


def _nmslib() -> Any:
    """The module, logging warnings only, and imported without the notice on instruction sets that C++ prints."""
    with _importing, contextlib.ExitStack() as undo:
        if "nmslib" not in sys.modules:
            with contextlib.suppress(OSError):  # no stderr at all
                saved = os.dup(2)
                undo.callback(os.close, saved)
                undo.callback(os.dup2, saved, 2)
                nowhere = os.open(os.devnull, os.O_WRONLY)
                undo.callback(os.close, nowhere)
                os.dup2(nowhere, 2)
        import nmslib
    logger = logging.getLogger("nmslib")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)
    return nmslib


@contextlib.contextmanager
def _file_for_nmslib() -> Iterator[Path]:
    """A place for the file that nmslib insists on."""
    with tempfile.TemporaryDirectory(prefix="fasthash-") as folder:
        try:
            yield Path(folder) / "graph"
        except (OSError, RuntimeError) as error:  # nmslib raises RuntimeError when a file cannot be written
            raise FastHashError(f"{folder}: cannot keep a graph here for the moment: {error}") from error


def _levels_by_nmslib(points: Floats, M: int, ef_construction: int, threads: int) -> Levels:
    if not len(points):
        return Levels(np.empty((0, 1), np.uint32), np.empty(0, np.uint8), np.empty((0, 1), np.uint32), 0)
    # Frames of one day that come one after the other would be linked to each other only, and be found by few queries.
    # With passes over the whole series, all of it is there early; a random order does the same, at twice the cost.
    order = np.concatenate([np.arange(i, len(points), _PASSES) for i in np.random.default_rng(0).permutation(_PASSES)])
    handle = _nmslib().init(method="hnsw", space="l2")  # of unit vectors, l2 is cosine with more digits
    handle.addDataPointBatch(points[order])
    handle.createIndex({"M": M, "efConstruction": ef_construction, "indexThreadQty": threads})
    with _file_for_nmslib() as path:
        handle.saveIndex(str(path))
        del handle
        file = np.fromfile(path, np.uint8)
    try:
        return _renumbered(_parsed(file, len(points)), order)
    except (ValueError, IndexError) as error:
        raise FastHashError(f"nmslib {_nmslib().__version__}: its graph is not of the form known here") from error


def _parsed(file: NDArray[np.uint8], n: int) -> Levels:
    """The graph of n points in nmslib's file; raises ValueError or IndexError where it is of another form."""
    head = file[: _HEAD.itemsize].view(_HEAD)[0]
    n_links, n_upper, links_at = int(head["n_links"]), int(head["n_upper"]), int(head["links_at"])
    stop = _HEAD.itemsize + n * int(head["node_bytes"])
    words = file[stop:].view(np.int32)
    if head["optimized"] != 1 or head["n_nodes"] != n or head["point_at"] != 0 or n_links > MAX_LINKS:
        raise ValueError(head)
    form = np.dtype(
        {
            "names": ["id", "links"],
            "formats": ["i4", ("i4", (n_links + 1,))],
            "offsets": [0, links_at],
            "itemsize": int(head["node_bytes"]),
        }
    )
    nodes = file[_HEAD.itemsize : stop].view(form)
    if (nodes["id"] != np.arange(n)).any():
        raise ValueError("ids")
    heights, upper, at = np.zeros(n, np.uint8), [np.empty((0, n_upper + 1), np.int32)], 0
    for node in range(n):
        size = int(words[at]) // words.itemsize
        if size:
            upper.append(words[at + 1 : at + 1 + size].reshape(-1, n_upper + 1))
            heights[node] = len(upper[-1])
        at += 1 + size
    if at != len(words) or heights[head["entry"]] != head["top"]:
        raise ValueError("levels")
    numbers = np.arange(n)
    above = _filled(np.concatenate(upper), np.repeat(numbers, heights))
    return Levels(_filled(nodes["links"], numbers), heights, above, int(head["entry"]))


def _renumbered(levels: Levels, order: Ints) -> Levels:
    """The same graph where node i is called ``order[i]``."""
    before = np.argsort(order)  # what a node was called
    heights = levels.heights[before]
    ends, starts = np.cumsum(heights, dtype=np.int64), np.cumsum(levels.heights, dtype=np.int64) - levels.heights
    upper = np.repeat(starts[before] - (ends - heights), heights) + np.arange(len(levels.upper))
    names = order.astype(np.uint32)
    return Levels(names[levels.links[before]], heights, names[levels.upper[upper]], int(order[levels.entry]))


def _filled(counted: NDArray[np.int32], own: Ints) -> Links:
    """Links without their number before them; those that lack are the node's ``own``."""
    given = np.arange(counted.shape[1] - 1) < counted[:, :1]
    return np.where(given, counted[:, 1:], own[:, np.newaxis]).astype(np.uint32)
