"""The nearest rows of a catalog's table: by graph, by tables of codes or by a scan, whichever answers soonest.

Graphs and tables are caches, over the rows that were there when they were made. What has come since is scanned, what
was deleted is passed over.
"""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._graph import Graph
from fasthash._journal import Place
from fasthash._scan import decode, nearest
from fasthash._storage import read_container, write_container
from fasthash._table import Table
from fasthash.errors import FastHashError
from fasthash.hamming import knn_hamming
from fasthash.hamming_index import HammingIndex

Ints = NDArray[np.int64]
Hits = tuple[NDArray[Any], Ints]  # of one query: distances, rows
NO_HITS: Hits = (np.empty(0, np.float32), np.empty(0, np.int64))

SCANNED = 50_000  # up to so many rows a scan takes less than a millisecond, and is exact: they need no graph
STALE = 8  # a graph is due when the rows that came after it exceed 1/8 of its own
_M, _EF_CONSTRUCTION = 16, 200  # those of HNSWIndex
_EF = 200  # with 100, a query in 150 finds none of its neighbours among a million frames; it takes 20 us more
_NODE = 100  # so many rows are scanned in the time a graph takes for one candidate
_FEW = 4096  # so many hits too many are no burden to tables of codes
_KIND = "catalog-graph"
_BLOCK = 65536  # rows whose cells are compared at a time
_MIDDLE = np.float32(128)  # of a byte


@dataclass(frozen=True, eq=False)
class Selection:
    """Which of the live rows a search may give: ``rows``, all for None, but none of ``without``; both rise."""

    rows: Ints | None
    without: Ints

    def count(self, table: Table) -> int:
        return table.n_live - len(self.without) if self.rows is None else len(self.rows)

    def explicit(self, table: Table) -> Ints | None:
        """Those rows one by one; None for all there are."""
        if self.rows is not None:
            return self.rows
        if self.is_everything(table):
            return None
        kept = ~table["dead"]
        kept[self.without] = False
        return np.flatnonzero(kept)

    def is_everything(self, table: Table) -> bool:
        return self.rows is None and not table.n_dead and not len(self.without)

    def keeps(self, table: Table, rows: Ints) -> NDArray[np.bool_]:
        """Which of some rows are live and selected; -1 is none."""
        kept = rows >= 0
        if table.n_dead:
            kept &= ~table["dead"][rows]
        if self.rows is not None:
            kept &= within(self.rows, rows)
        return kept & ~within(self.without, rows) if len(self.without) else kept


def within(rising: Ints, values: Ints) -> NDArray[np.bool_]:
    """Which of the values are among the rising ones."""
    if not len(rising):
        return np.zeros(len(values), np.bool_)
    at = np.minimum(rising.searchsorted(values), len(rising) - 1)
    return rising[at] == values


class Neighbours:
    """Searches in the tables of one catalog, with caches in a folder of its own.

    holds: tells whether the catalog's journal has a seal at a place: a graph of another history is no use.
    """

    def __init__(self, folder: Path, n_bits: int, holds: Callable[[Place], bool]) -> None:
        self._folder, self._holds = folder, holds
        self._loading = threading.Lock()
        self._graphs: dict[str, Graph | None] = {}
        self._files: dict[str, Any] = {}  # what the file was like that a graph came from
        self._looked: dict[str, Place] = {}  # when that was looked at
        self._hamming = HammingIndex(n_bits)
        self._stop = -1  # ids below it are in the index, but those of so many dead rows; -1: its file was not read yet
        self._n_dead = 0
        self._taken: tuple[Place, HammingIndex] | None = None  # the index as it was at a place

    def nearest(
        self, table: Table, vectors: NDArray[Any], metric: str, k: int, selection: Selection, exact: bool, threads: int
    ) -> list[Hits]:
        """Of each vector (of each code for "hamming") the k nearest of the selected rows, by (distance, row)."""
        n = selection.count(table)
        k = min(k, n)
        if k == 0:
            return [NO_HITS] * len(vectors)
        if metric == "hamming":
            return self._nearest_codes(table, vectors, k, selection, threads)
        graph = None if exact or n <= SCANNED else self.graph(table, metric)
        if graph is not None and graph.n_nodes and graph.n_rows <= table.n:  # else later tables have got it meanwhile
            wanted = _wanted(table, k, selection)
            if n > _NODE * wanted:
                return _by_graph(graph, wanted, table, vectors, metric, k, selection, threads)
        keys = nearest(vectors, table["hashes"], metric, k, threads, selection.explicit(table))
        return list(zip(*decode(keys), strict=True))

    # ---- graphs

    def graph(self, table: Table, metric: str) -> Graph | None:
        """The graph of a metric, from its file: anew where another process has written one since."""
        if self._looked.get(metric) is not table.place:
            with self._loading:
                found = _signature(self._folder / f"graph-{metric}")
                if found != self._files.get(metric):
                    self._load_graph(table, metric, found)
                self._looked[metric] = table.place
        return self._graphs.get(metric)

    def holds_all(self, table: Table, metric: str) -> bool:
        """Whether there is a graph that holds every row."""
        graph = self.graph(table, metric)
        return graph is not None and graph.n_rows == table.n

    def is_due(self, table: Table, metric: str) -> bool:
        """Whether so many rows are in no graph that one should be made of them."""
        graph = self.graph(table, metric)
        if graph is None and metric != "l2":  # whoever wants one asks `compact` for it
            return False
        n_rows = graph.n_rows if graph else 0
        return table.n - n_rows > max(SCANNED, n_rows // STALE)

    def build(self, table: Table, metric: str, threads: int) -> None:
        """Make a graph of all rows, and write its file."""
        graph = Graph.build(table["hashes"], metric, _M, _EF_CONSTRUCTION, threads)
        path = self._folder / f"graph-{metric}"
        about, arrays = graph.for_file()
        write_container(path, _KIND, about | {"seq": table.place.seq, "seal": table.place.seal.hex()}, arrays)
        with self._loading:
            self._graphs[metric], self._files[metric] = graph, _signature(path)

    def _load_graph(self, table: Table, metric: str, file: Any) -> None:
        graph = None
        with contextlib.suppress(FastHashError):  # a cache: the rows are scanned until there is another
            about, arrays = read_container(self._folder / f"graph-{metric}", _KIND)
            place = Place(about["seq"], bytes.fromhex(about["seal"]))
            if place.seq > table.place.seq:
                return  # it has rows that this table has not: the next one will
            if self._holds(place):
                graph = Graph.from_file(about, arrays, table["hashes"], metric)
        self._graphs[metric], self._files[metric] = graph, file

    # ---- codes

    def _nearest_codes(
        self, table: Table, codes: NDArray[np.uint8], k: int, selection: Selection, threads: int
    ) -> list[Hits]:
        tables = self._hamming_of(table) if selection.rows is None and len(selection.without) <= _FEW else None
        if tables is not None:
            found = tables.search(codes, k + len(selection.without), threads)
            hits = [_selected(table, near, table.rows_of(ids), k, selection) for near, ids in zip(*found, strict=True)]
            if all(len(rows) == k for _, rows in hits):  # later rows may have taken their place
                return hits
        return list(zip(*knn_hamming(codes, table["codes"], k, threads, selection.explicit(table)), strict=True))

    def _hamming_of(self, table: Table) -> HammingIndex | None:
        """An index of all live codes of the table, perhaps of some added later too; None where it lacks some since."""
        taken = self._taken
        if taken is not None and taken[0] is table.place:
            return taken[1]
        with self._loading:
            if self._stop < 0:
                self._load_hamming(table)
            if table.n_dead < self._n_dead:
                return None  # a later table was searched, in which more are dead
            ids = table["ids"]
            start = int(ids.searchsorted(self._stop))
            if start < table.n:
                self._hamming.add(table["codes"][start:], ids[start:])
                self._stop = int(ids[-1]) + 1
            if start < table.n or table.n_dead != self._n_dead:
                held = self._hamming.ids
                self._hamming.remove(held[table.rows_of(held) < 0])
                self._n_dead = table.n_dead
            self._taken = taken = table.place, self._hamming.snapshot()
            return taken[1]

    def _load_hamming(self, table: Table) -> None:
        """The index of the file, where that holds codes of this very table."""
        self._stop = 0
        with contextlib.suppress(FastHashError):
            loaded = HammingIndex.load(self._folder / "hamming")
            rows, stop = table.rows_of(loaded.ids), int(loaded.ids.max(initial=-1)) + 1
            if stop > int(table["ids"].max(initial=-1)) + 1:
                return  # it has rows that this table has not, and nothing to compare them with
            own, found = table.live()[: int(table["ids"].searchsorted(stop))], rows[rows >= 0]
            if np.array_equal(own, found) and np.array_equal(table["codes"][found], loaded.codes[rows >= 0]):
                self._hamming, self._stop, self._n_dead = loaded, stop, -1

    def save_hamming(self, table: Table) -> None:
        tables = self._hamming_of(table)
        if tables is not None:
            tables.save(self._folder / "hamming")


def _signature(path: Path) -> Any:
    """What tells one file from another that takes its place."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns, about.st_size


def _wanted(table: Table, k: int, selection: Selection) -> int:
    """How many candidates to ask a graph for, that about `_EF` of them, and k at least, are selected.

    Rows around the query's time are likely the nearest of all; rows by other marks lie anywhere.
    """
    wanted = max(k, _EF)
    if selection.rows is None:
        return wanted * table.n // table.n_live + len(selection.without)
    return max(k, wanted * table.n // len(selection.rows))


def _by_graph(
    graph: Graph,
    wanted: int,
    table: Table,
    vectors: NDArray[np.float32],
    metric: str,
    k: int,
    selection: Selection,
    threads: int,
) -> list[Hits]:
    """What is selected of the nearest ``wanted`` that a graph leads to; a scan for a query that has too few of them."""
    hashes, everything = table["hashes"], selection.is_everything(table)
    asked = k if everything else wanted
    keys, failed = graph.search(vectors, hashes, asked, wanted, threads)
    hits: list[Hits] = list(zip(*decode(keys), strict=True))
    if not everything:
        hits = [_selected(table, distances, rows, k, selection) for distances, rows in hits]
        failed = np.union1d(failed, [i for i, (_, rows) in enumerate(hits) if len(rows) < k]).astype(np.int64)
    if len(failed):
        keys = nearest(vectors[failed], hashes, metric, k, threads, selection.explicit(table))
        for i, hit in zip(failed.tolist(), zip(*decode(keys), strict=True), strict=True):
            hits[i] = hit
    return hits


def nearest_cells(
    cells: NDArray[np.uint8],
    queries: NDArray[np.uint8],
    chosen: NDArray[np.bool_],
    metric: str,
    k: int,
    rows: Ints,
    threads: int,
) -> list[Hits]:
    """The k nearest of some rows of ``cells``, uint8 (n, values), by the ``chosen`` cells of the grid alone."""
    values = np.flatnonzero(np.repeat(chosen.reshape(-1), cells.shape[1] // chosen.size))
    points = np.ascontiguousarray(queries[:, values], np.float32) - _MIDDLE
    hits: list[Hits] = [NO_HITS] * len(queries)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        floats = cells[block].take(values, axis=1).astype(np.float32) - _MIDDLE
        distances, found = decode(nearest(points, floats, metric, k, threads))
        for i, (held_distances, held_rows) in enumerate(hits):
            near, its = np.concatenate([held_distances, distances[i]]), np.concatenate([held_rows, block[found[i]]])
            order = np.lexsort((its, near))[:k]
            hits[i] = near[order], its[order]
    return hits


def _selected(table: Table, distances: NDArray[Any], rows: Ints, k: int, selection: Selection) -> Hits:
    kept = selection.keeps(table, rows)
    return distances[kept][:k], rows[kept][:k]
