"""The durable archive on disk: what was indexed, with which encoder, when.

A catalog is a folder::

    encoder.onnx     the encoder that made every hash in it
    catalog.sqlite   the journal: every change, in order; the truth (fasthash/_journal.py)
    catalog.mark     how far the journal was acknowledged
    cache/           rows, graphs and tables made from the journal, to open and search large catalogs in no time

How it works, and what it promises, is told in docs/catalog.md.
"""

import contextlib
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fasthash._details import CARDS, Details, cells_within, check_where, metadata_of
from fasthash._format1 import migrate
from fasthash._journal import DATABASE, FORMAT, START, Entry, Journal, Place, Rewritten, append, rewrite
from fasthash._neighbours import NO_HITS, SCANNED, Hits, Neighbours, Selection, nearest_cells
from fasthash._parallel import map_jobs
from fasthash._queries import NONE, Nearest, Query, as_interval, but_around, find, is_hashed, milliseconds, thinned
from fasthash._storage import UMASK, atomic_write, sync_directory
from fasthash._table import NO_TIME, Table
from fasthash._validation import as_path, as_vectors, available_cores, check_choice, check_int
from fasthash.encoder import Encoded, Encoder, Failure, load_encoder
from fasthash.errors import ArgumentError, CorruptFileError, EncoderError, FastHashError
from fasthash.io import DEFAULT_LIMITS, Limits, as_image, find_images
from fasthash.times import Span, as_span, format_time

__all__ = ["CARDS", "METRICS", "AddReport", "Catalog", "Hit", "Rows", "remarks_on"]

_T = TypeVar("_T")

METRICS = ("l2", "cosine", "hamming")
_ENCODER = "encoder.onnx"
_CACHE = "cache"
_ROWS = "rows"
# Rows of a transaction: each costs a wait for the disk.
_COMMIT = 64
# So many entries after those in the file of rows take as long to read as a large file.
_WORTH_A_FILE = 8192


@dataclass(frozen=True)
class Hit:
    """One search result; ``time`` is ISO 8601 in UTC, ``time`` and ``label`` are empty where unknown.

    id: the catalog's number of the image, never given to another one.
    """

    rank: int
    distance: float
    path: str
    time: str
    label: str
    id: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinity: an l2 distance too great for float32 is None there."""
        return vars(self) | {"distance": self.distance if math.isfinite(self.distance) else None}


@dataclass(frozen=True)
class AddReport:
    """What an ``add`` did: paths added, paths whose content was there already, one line for each failure or remark."""

    added: list[str]
    known: list[str]
    failures: list[str]
    remarks: list[str]


@dataclass(frozen=True)
class Rows:
    """All rows of a catalog at one moment, in the order they were added.

    ids int64 (n,); digests: BLAKE2b-128 of the files' bytes, hexadecimal; times datetime64[ms] (n,), UTC; hashes
    float32 (n, dim); codes uint8 (n, n_bytes). metadata: JSON of the header cards `CARDS` ("" for none), cells: uint8
    (values,) or None; both lists are empty unless asked for.
    """

    ids: NDArray[np.int64]
    paths: list[str]
    digests: list[str]
    times: NDArray[np.datetime64]
    labels: NDArray[np.str_]
    hashes: NDArray[np.float32]
    codes: NDArray[np.uint8]
    metadata: list[str]
    cells: list[NDArray[np.uint8] | None]

    def vectors(self, metric: str) -> NDArray[Any]:
        """What a metric compares: the codes for "hamming", else the hashes."""
        return self.codes if metric == "hamming" else self.hashes


class _State(NamedTuple):
    """What is known of a catalog at one moment; details and neighbours are shared until rows get other numbers."""

    table: Table
    details: Details
    neighbours: Neighbours


class Catalog:
    """An archive of hashed images; get one from :meth:`create` or :meth:`open`, and close it or use ``with``.

    Any number of threads may use one, and any number of processes the folder: a search sees all that was acknowledged
    when it began.
    """

    def __init__(self, path: Path, encoder: Encoder) -> None:
        self.path = path
        self.encoder = encoder
        self._journal = Journal(path)
        self._lock = threading.RLock()  # held to look at the journal, and at what is kept of it
        self._version: tuple[int, int] | None = None
        self._folding: threading.Thread | None = None
        self._tried = 0  # the seq up to which caches were written, or could not be
        self._state = self._unread(self._empty())

    def _unread(self, table: Table) -> "_State":
        """Of a table that nothing else is known of."""
        neighbours = Neighbours(self.path / _CACHE, self.encoder.n_bits, self._holds)
        return _State(table, Details(self._journal), neighbours)

    def _empty(self) -> Table:
        return Table.empty(self.encoder.dim, -(-self.encoder.n_bits // 8))

    @classmethod
    def create(cls, path: str | os.PathLike[str], encoder: Encoder | str | os.PathLike[str]) -> "Catalog":
        """Make an empty catalog in a folder that does not exist yet, or is empty.

        Raises
        ------
        FastHashError
            Where something is at ``path`` already, or the folder cannot be made.
        """
        target = Path(as_path(path))
        if not isinstance(encoder, Encoder):
            encoder = load_encoder(encoder)
        if not is_free(target):
            raise FastHashError(f"{target}: exists already; a catalog is added to with `fasthash add`")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        except OSError as error:
            raise FastHashError(f"{target}: cannot make a folder here: {error.strerror}") from error
        try:
            with atomic_write(draft / _ENCODER) as file:
                file.write(encoder.data)
            Journal.create(draft, encoder.fingerprint, encoder.name)
            draft.chmod(0o777 & ~UMASK)
            os.replace(draft, target)
            sync_directory(target.parent)
        except (OSError, FastHashError) as error:
            reason = getattr(error, "strerror", None) or str(error).rpartition(": ")[2]
            raise FastHashError(f"{target}: cannot write: {reason}") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return cls(target, encoder)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Catalog":
        """Open a catalog.

        Raises
        ------
        FastHashError
            Where there is none at ``path``; CorruptFileError where it is damaged.
        """
        target = Path(as_path(path))
        if not (target / DATABASE).is_file():
            raise FastHashError(f"{target}: no catalog here (no {DATABASE} in it)")
        encoder = load_encoder(target / _ENCODER)
        migrate(target)
        catalog = cls(target, encoder)
        try:
            about = catalog._journal.about()
            if about["format"] != FORMAT:
                raise CorruptFileError(f"{target}: catalog format {about['format']}; this fasthash reads {FORMAT}")
            if about["encoder"] != encoder.fingerprint:
                raise CorruptFileError(f"{target / _ENCODER}: not the encoder that this catalog was made with")
            encoder.name = about["name"]
            table = catalog._current().table
            if catalog._is_worth_a_file(table):
                with contextlib.suppress(FastHashError):
                    catalog._save_rows(table)
        except BaseException:
            catalog.close()
            raise
        return catalog

    def close(self) -> None:
        """Close the files; what was added stays. Waits for changes under way, and for a graph that is being built."""
        if self._folding is not None:
            self._folding.join()
        with self._journal.writing, self._lock:
            self._journal.close()

    def __enter__(self) -> "Catalog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._current().table.n_live

    def __repr__(self) -> str:
        return f"<Catalog {self.path}: {len(self)} images, encoder {self.encoder.name}>"

    # ---- what is in it

    def _current(self) -> _State:
        """All that was acknowledged by now."""
        with self._lock:
            version = self._journal.version()
            if version != self._version:
                try:
                    self._state = self._read()
                except CorruptFileError:
                    # Who may only read has no locks: perhaps it was written to meanwhile.
                    if self._journal.version() == version:
                        raise
                    return self._current()
                self._version = version
            return self._state

    def _read(self) -> _State:
        """All that is in the journal: going on from what was read before, else from the file of rows, else anew."""
        if self._state.table.place != START:
            with contextlib.suppress(Rewritten):
                return self._state._replace(table=self._read_on(self._state.table))
        cached = self._empty()
        with contextlib.suppress(FastHashError):
            cached = cached.load(self.path / _CACHE / _ROWS)
        with contextlib.suppress(Rewritten):
            return self._unread(self._read_on(cached))
        return self._unread(self._read_on(self._empty()))

    def _read_on(self, table: Table) -> Table:
        return table.after(self._journal.after(table.place), self.encoder.binarize)

    def _holds(self, place: Place) -> bool:
        with self._lock:
            return self._journal.holds(place)

    def get(self, image: int | str | os.PathLike[str]) -> Hit:
        """One image by its id or path, as a hit of rank 0; raises ArgumentError where it is not there."""
        table = self._current().table
        hit = _hits(table, np.zeros(1), find(table, image)[:1])[0]
        return replace(hit, rank=0)

    def rows(self, details: bool = False) -> Rows:
        """Every image; with ``details`` also header cards and cells, which takes longer.

        Raises
        ------
        CorruptFileError
            Naming the first entry that is not as it was written.
        """
        now = self._current()
        table = now.table
        try:
            read = {
                name: self._look_up(now, Details.read, name, 0) if details else [] for name in ("metadata", "cells")
            }
        except Rewritten:
            return self.rows(details)
        live = table.live()
        kept = live.tolist()
        return Rows(
            table["ids"][live],
            [table.path(row) for row in kept],
            [digest.tobytes().hex() for digest in table["digests"][live]],
            table["times"][live].view("datetime64[ms]"),
            np.array([table.label(row) for row in kept], np.str_),
            table["hashes"][live],
            table["codes"][live],
            [read["metadata"][row] or "" for row in kept] if details else [],
            [_as_cells(read["cells"][row]) for row in kept] if details else [],
        )

    def _look_up(self, now: _State, what: Callable[..., _T], *arguments: Any) -> _T:
        """Ask the details; raises Rewritten where they are not those of the table any more."""
        try:
            with self._lock:
                return what(now.details, now.table, *arguments)
        except CorruptFileError:
            if self._current().details is now.details:
                raise
            raise Rewritten from None

    def verify(self) -> int:
        """Read all of the journal again, and check it against what searches use; tells how many images there are.

        Raises
        ------
        CorruptFileError
            Naming the first entry that is not as it was written.
        """
        table = self._current().table
        with contextlib.closing(Journal(self.path)) as journal:
            read = self._empty().after(journal.after(START), self.encoder.binarize)
        shared = read.rows_of(table["ids"])
        if not np.array_equal(read["hashes"][shared[shared >= 0]], table["hashes"][shared >= 0]):
            raise CorruptFileError(f"{self.path / _CACHE / _ROWS}: not what the journal says; delete it")
        return read.n_live

    # ---- changing it

    def add(
        self,
        paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str],
        num_threads: int = -1,
        limits: Limits = DEFAULT_LIMITS,
        progress: Callable[[int, int], None] | None = None,
    ) -> AddReport:
        """Encode images and add them; returns when every row is on the disk.

        Parameters
        ----------
        paths : files, folders, globs and zips
            A file whose content is in the catalog already is left as it is; one that cannot be used is reported.
        progress : callable(done, total), optional

        Raises
        ------
        FastHashError
            Where the catalog itself cannot be written; what was reported as added before stays.
        """
        inputs = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        found, failures = find_images(inputs)
        report = AddReport([], [], failures, [])
        batch: list[Encoded] = []
        for done, item in enumerate(self.encoder.encode_files(found, num_threads, limits), start=1):
            if isinstance(item, Failure):
                failures.append(item.message)
            else:
                batch.append(item)
            if len(batch) == _COMMIT:
                self._insert(batch, report)
                batch = []
            if progress is not None:
                progress(done, len(found))
        self._insert(batch, report)
        return report

    def insert(self, items: Iterable[Encoded]) -> AddReport:
        """Add images that are encoded already, all in one transaction; returns when they are on the disk.

        Of an image's header the cards `CARDS` are kept.

        Raises
        ------
        EncoderError
            Where an item was made by another encoder.
        ArgumentError
            Where an item has no digest of its file's bytes, or a hash of another length.
        FastHashError
            Where the catalog cannot be written; then none is added.
        """
        report = AddReport([], [], [], [])
        self._insert(list(items), report)
        return report

    def _insert(self, batch: Sequence[Encoded], report: AddReport) -> None:
        for item in batch:
            self._check_encoder(item)
        drafts = [entry_of(item, self.encoder) for item in batch]
        added: list[str] = []
        known: list[str] = []

        def entries(table: Table) -> Iterator[Entry]:
            digests: set[bytes] = set()
            seq = table.place.seq
            for item, draft in zip(batch, drafts, strict=True):
                digest = draft.digest or b""
                if digest in digests or len(table.with_digest(digest)):
                    known.append(item.image.path)
                    continue
                seq += 1
                digests.add(digest)
                added.append(item.image.path)
                yield draft._replace(seq=seq)

        if drafts:
            self._write(entries)
        # Acknowledged only now that the transaction is on the disk.
        report.added.extend(added)
        report.known.extend(known)
        report.remarks.extend(f"{item.image.path}: {text}" for item in batch for text in remarks_on(item, self.encoder))

    def _check_encoder(self, item: Encoded) -> None:
        if item.encoder and item.encoder != self.encoder.fingerprint:
            raise EncoderError(
                f"{item.image.path or 'image'}: encoded by {item.encoder[:12]}, but the hashes of {self.path} are by "
                f"{self.encoder.fingerprint[:12]} ({self.encoder.name})"
            )

    def relabel(self, images: Any, label: str) -> int:
        """Give images another label ("" for none); tells how many, and returns when it is on the disk.

        images: an id or a path as the catalog has it, or several. Raises ArgumentError where there is no such image.
        """
        return self._change("relabel", images, _as_label(label))

    def delete(self, images: Any) -> int:
        """Take images out of the catalog; tells how many, and returns when it is on the disk.

        images: an id or a path as the catalog has it, or several. The files they were made of are left alone. Their
        rows leave the disk with the next `compact`. Raises ArgumentError where there is no such image.
        """
        return self._change("delete", images, None)

    def _change(self, kind: str, images: Any, label: str | None) -> int:
        ids: list[int] = []

        def entries(table: Table) -> Iterator[Entry]:
            ids.extend(table["ids"][find(table, images)].tolist())
            for seq, number in enumerate(ids, table.place.seq + 1):
                yield Entry(seq, kind, number, label=label)

        self._write(entries)
        return len(ids)

    def _write(self, entries: Callable[[Table], Iterable[Entry]]) -> None:
        """Append what ``entries`` makes of the table as it is with nobody else writing."""
        with self._journal.transaction() as connection:
            table = self._current().table
            place = append(connection, table.place, entries(table))
        self._journal.acknowledge(place)
        with self._lock:
            if self._is_worth_a_file(table) and not self.is_folding:
                self._folding = threading.Thread(target=self._fold, name="fasthash fold")
                self._folding.start()

    def compact(self, metric: str = "l2") -> None:
        """Drop from the disk what was deleted and relabelled; make all caches anew, and a graph for ``metric``.

        All of the journal is checked first. Images keep their ids, and searches go on meanwhile.

        Raises
        ------
        CorruptFileError
            Where an entry is not as it was written; then nothing is changed.
        """
        check_choice("metric", metric, METRICS[:2])
        if self._folding is not None:
            self._folding.join()
        with self._journal.transaction() as connection, contextlib.closing(Journal(self.path)) as journal:
            self.verify()
            table = self._current().table
            rewritten = table.n_changes > 0
            if rewritten:
                place = rewrite(connection, self._survivors(journal, table), table.place.seq + 1)
        if rewritten:
            self._journal.acknowledge(place)
            self._journal.shrink()
        table, _, neighbours = self._current()
        self._save_rows(table)
        neighbours.save_hamming(table)
        if table.n > SCANNED and not neighbours.holds_all(table, metric):
            neighbours.build(table, metric, available_cores())

    def _survivors(self, journal: Journal, table: Table) -> Iterator[Entry]:
        """The entries that are still of use, with the labels of today."""
        for entry, _ in journal.after(START):
            if entry.kind == "create":
                yield entry
            row = int(table.rows_of(np.array([entry.seq]))[0])
            if entry.kind == "add" and row >= 0:
                yield entry._replace(label=table.label(row))

    # ---- caches: where they cannot be written, all works without

    @property
    def is_folding(self) -> bool:
        """Whether caches are being brought up to what was added: `close` waits for it."""
        return self._folding is not None and self._folding.is_alive()

    def _is_worth_a_file(self, table: Table) -> bool:
        tried = max(table.cached, self._tried)
        return table.place.seq - tried > max(_WORTH_A_FILE, tried // 8)

    def _fold(self) -> None:
        """Bring the caches up to what has come since."""
        with contextlib.suppress(FastHashError):
            table, _, neighbours = self._current()
            self._save_rows(table)
            neighbours.save_hamming(table)
            for metric in METRICS[:2]:
                if neighbours.is_due(table, metric):
                    # Whoever searches or adds meanwhile has the other cores.
                    neighbours.build(table, metric, max(1, available_cores() // 2))

    def _save_rows(self, table: Table) -> None:
        self._tried = table.place.seq
        folder = self.path / _CACHE
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise FastHashError(f"{folder}: cannot make it: {error.strerror}") from error
        table.save(folder / _ROWS)
        with self._lock:
            now = self._state
            self._state = now._replace(table=replace(now.table, cached=table.place.seq))

    # ---- searching it

    def search(
        self,
        image: Any,
        k: int = 10,
        metric: str = "l2",
        exclude_within: Span | None = None,
        between: tuple[Any, Any] | None = None,
        label: str | None = None,
        where: Mapping[str, Any] | None = None,
        distinct: Span | None = None,
        region: str | Sequence[float] | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """The most similar images, by (distance, order of addition).

        Parameters
        ----------
        image : path, array (H, W), SunPy map, Image or Encoded; or a hash, float32 (dim,); or the id of an image in it
        k : int
            Results wanted; fewer where fewer images are allowed.
        metric : "l2", "cosine" (on hashes) or "hamming" (on codes)
        exclude_within : timedelta, text such as "12h", or hours, optional
            Leave out images within this of the query's time, both ends included; those without a time stay.
        between : (time, time), optional
            Only images taken in this span, both ends included; datetime64, datetime or ISO 8601 text, UTC.
        label : str, optional
            Only images of this label.
        where : mapping of header cards, optional
            Only images with these values (numbers or text), or with numbers in these (low, high), both included. The
            cards that are kept are `CARDS`.
        distinct : timedelta, text or hours, optional
            Leave out images taken less than this from one that is more similar: one of each stretch of time.
        region : "north", "south", "east", "west" or (x0, y0, x1, y1), optional
            Compare only this part of the images: by l2 or cosine distance of the cells of the encoder's grid, see
            `fasthash.encoder.FrontEnd`. A box is in shares of the grid's width and height from its south-eastern
            corner, x to the west and y to the north.
        exact : bool
            Look at every image; else, where more than 50,000 are allowed, those that an HNSW graph proposes.

        Raises
        ------
        ArgumentError
            Where an argument is none of these, or the query lacks what it needs.
        EncoderError
            Where the query was encoded by another encoder.
        """
        return self.search_many([image], k, metric, exclude_within, between, label, where, distinct, region, exact)[0]

    def search_many(
        self,
        images: Iterable[Any],
        k: int = 10,
        metric: str = "l2",
        exclude_within: Span | None = None,
        between: tuple[Any, Any] | None = None,
        label: str | None = None,
        where: Mapping[str, Any] | None = None,
        distinct: Span | None = None,
        region: str | Sequence[float] | None = None,
        exact: bool = False,
    ) -> list[list[Hit]]:
        """`search` for each of many images, all in the catalog as it was at one moment."""
        check_int("k", k, 1)
        check_choice("metric", metric, METRICS)
        around = None if exclude_within is None else int(as_span("exclude_within", exclude_within).astype(np.int64))
        gap = None if distinct is None else int(as_span("distinct", distinct).astype(np.int64))
        some = list(images)
        threads = 1 if all(is_hashed(image) for image in some) else available_cores()
        while True:
            with contextlib.suppress(Rewritten):  # compacted while it was searched
                now = self._current()
                queries = map_jobs(partial(self._as_query, now, region is not None), some, threads)
                rows = self._allowed(now, between, label, where)
                if region is None:
                    nearest = self._by_hash(now, queries, metric, exact)
                else:
                    nearest = self._by_cells(now, queries, metric, region)
                return _found(now.table, queries, nearest, rows, k, around, gap)

    def _as_query(self, now: _State, with_cells: bool, image: Any) -> Query:
        encoder, table = self.encoder, now.table
        if isinstance(image, (int, np.integer)):
            row = int(find(table, image)[0])
            cells = None
            if with_cells:
                grids, have_any = self._look_up(now, Details.cells)
                cells = grids[row] if have_any[row] else None
            return Query(table["hashes"][row], int(table["times"][row]), cells, f"image {image}")
        if isinstance(image, Encoded):
            self._check_encoder(image)
            vector = _as_hash("image: its hash", image.hash, encoder)
            return Query(vector, milliseconds(image.image.time), image.cells, image.image.path or "image")
        if isinstance(image, np.ndarray) and image.ndim == 1:
            return Query(as_vectors("image: a hash", image, encoder.dim)[0], NO_TIME, None, "hash")
        read = as_image(image)
        inputs = encoder.front_end.describe(read)
        cells = encoder.cells(inputs) if with_cells else None
        vector = encoder.encode_inputs(inputs[np.newaxis])[0]
        return Query(vector, milliseconds(read.time), cells, read.path or "image")

    def _allowed(
        self, now: _State, between: Any, label: str | None, where: Mapping[str, Any] | None
    ) -> NDArray[np.int64] | None:
        """The live rows that the filters let through, rising; None for all."""
        table, rows = now.table, None
        if between is not None:
            rows = table.taken_between(*as_interval(between))
        if label is not None:
            rows = table.live() if rows is None else rows
            number = table.label_names.index(label) if label in table.label_names else -1
            rows = rows[table["labels"][rows] == number]
        if where:
            check_where(where)
            rows = self._look_up(now, Details.with_cards, table.live() if rows is None else rows, where)
        return rows

    def _by_hash(self, now: _State, queries: list[Query], metric: str, exact: bool) -> Nearest:
        points: NDArray[Any] = np.array([query.hash for query in queries], np.float32).reshape(-1, self.encoder.dim)
        if metric == "hamming":
            points = self.encoder.binarize(points)

        def nearest(selection: Selection, some: slice, k: int) -> list[Hits]:
            return now.neighbours.nearest(now.table, points[some], metric, k, selection, exact, available_cores())

        return nearest

    def _by_cells(self, now: _State, queries: list[Query], metric: str, region: Any) -> Nearest:
        check_choice("metric, of a region", metric, METRICS[:2])
        if self.encoder.cell_grid is None:
            raise ArgumentError(f"region: images of {self.encoder.name} have no grid of cells")
        chosen = cells_within(region, *self.encoder.cell_grid)
        if not now.table.n_live:
            return lambda _selection, some, _k: [NO_HITS] * len(queries[some])
        cells, have_any = self._look_up(now, Details.cells)
        if not have_any.any():
            raise ArgumentError(f"region: no image of {self.path} has cells: a fasthash without regions added them")
        for query in queries:
            if query.cells is None or query.cells.size != cells.shape[1]:
                raise ArgumentError(f"region: of the query {query.name} there is only its hash, no cells")
        grids = np.array([query.cells for query in queries], np.uint8).reshape(-1, cells.shape[1])

        def nearest(selection: Selection, some: slice, k: int) -> list[Hits]:
            rows = selection.explicit(now.table)
            rows = np.flatnonzero(have_any) if rows is None else rows[have_any[rows]]
            return nearest_cells(cells, grids[some], chosen, metric, k, rows, available_cores())

        return nearest


def _found(
    table: Table,
    queries: list[Query],
    nearest: Nearest,
    rows: NDArray[np.int64] | None,
    k: int,
    around: int | None,
    gap: int | None,
) -> list[list[Hit]]:
    """Of each query its hits; all queries at once where they may have the same."""
    if around is None and gap is None:
        return [_hits(table, *hits) for hits in nearest(Selection(rows, NONE), slice(None), k)]
    found = []
    for i, query in enumerate(queries):
        search = partial(nearest, but_around(table, rows, query, around), slice(i, i + 1))
        found.append(_hits(table, *(search(k)[0] if gap is None else thinned(table, search, k, gap))))
    return found


def _hits(table: Table, distances: NDArray[Any], rows: NDArray[np.int64]) -> list[Hit]:
    ids, times = table["ids"][rows].tolist(), table["times"][rows].view("datetime64[ms]")
    return [
        Hit(rank, distance, table.path(row), format_time(time), table.label(row), number)
        for rank, (distance, row, time, number) in enumerate(
            zip(distances.astype(float).tolist(), rows.tolist(), times, ids, strict=True), start=1
        )
    ]


def _as_cells(blob: bytes | None) -> NDArray[np.uint8] | None:
    return np.frombuffer(blob, np.uint8) if blob else None


def entry_of(item: Encoded, encoder: Encoder) -> Entry:
    """What the journal says of an image, but for the number; raises ArgumentError where it may not say so."""
    image = item.image
    vector = _as_hash("hash", item.hash, encoder)
    try:
        digest = bytes.fromhex(image.digest)
    except (TypeError, ValueError):
        digest = b""
    if len(digest) != 16:
        raise ArgumentError(f"{image.path}: expected a digest of 16 bytes, hexadecimal, got {image.digest!r}")
    time = None if np.isnat(image.time) else milliseconds(image.time)
    grid = encoder.cell_grid or (0, 0)
    cells = None if item.cells is None else np.asarray(item.cells)
    if cells is not None and (cells.dtype != np.uint8 or not grid[0] or cells.size % (grid[0] * grid[1])):
        raise ArgumentError(f"{image.path}: cells: expected uint8 for {grid}, got {cells.dtype} {cells.shape}")
    hash_ = vector.astype("<f4").tobytes()
    path, metadata = _storable(image.path), metadata_of(image.header)
    label, blob = _as_label(item.label), None if cells is None else cells.tobytes()
    return Entry(0, "add", None, path, digest, time, label, metadata, hash_, blob)


def _as_hash(name: str, value: Any, encoder: Encoder) -> NDArray[np.float32]:
    vectors = as_vectors(name, value, encoder.dim)
    if len(vectors) != 1:
        raise ArgumentError(f"{name}: expected one vector, got {len(vectors)}")
    return vectors[0]


def _as_label(label: Any) -> str:
    """Text that every column of labels holds as it is: NumPy's drops the NULs at its end."""
    if not isinstance(label, str) or any(c == "\0" or "\ud800" <= c <= "\udfff" for c in label):
        raise ArgumentError(f"label: expected text, got {label!r}")
    return label


def _storable(path: str) -> str | bytes:
    """A path as SQLite can hold it: a file name that is no valid text goes in as its bytes."""
    try:
        as_path(path).encode()
    except UnicodeEncodeError:
        try:
            return os.fsencode(path)
        except UnicodeEncodeError:
            raise ArgumentError(f"path: no file has a name like {path!r}") from None
    return path


def is_free(path: str | os.PathLike[str]) -> bool:
    """Whether a catalog could be made here: nothing is, or an empty folder."""
    target = Path(path)
    return not target.exists() or (target.is_dir() and not any(target.iterdir()))


def remarks_on(item: Encoded, encoder: Encoder) -> Iterator[str]:
    """What a user should know of an encoded image."""
    yield from item.image.remarks
    if np.isnat(item.image.time) and not encoder.timeless:
        yield "no time in its header or name"
