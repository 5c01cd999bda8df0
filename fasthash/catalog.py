"""The durable archive on disk: what was indexed, with which encoder, when.

A catalog is a folder::

    encoder.onnx     the encoder that made every hash in it
    catalog.sqlite   one row an image, each with a checksum of its own

SQLite in WAL mode keeps what was acknowledged through any crash, and lets processes read while one writes.
"""

import contextlib
import hashlib
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._storage import UMASK, atomic_write, sync_directory
from fasthash._validation import check_choice, check_int
from fasthash.encoder import Encoded, Encoder, Failure, load_encoder
from fasthash.errors import ArgumentError, CorruptFileError, FastHashError
from fasthash.hamming import knn_hamming
from fasthash.index import knn_exact
from fasthash.io import DEFAULT_LIMITS, Limits, as_image, find_images
from fasthash.times import NAT, Span, as_span, format_time, parse_time

METRICS = ("l2", "cosine", "hamming")
_DATABASE = "catalog.sqlite"
_ENCODER = "encoder.onnx"
_FORMAT = 1
# Rows of a transaction: each costs a wait for the disk.
_COMMIT = 64

_SCHEMA = """
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE,  -- BLAKE2b-128 of the file's bytes
    time INTEGER,                 -- milliseconds since 1970, UTC
    label TEXT NOT NULL,
    hash BLOB NOT NULL,           -- float32, little-endian
    checksum BLOB NOT NULL        -- BLAKE2b-64 of all of the above
);
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Hit:
    """One search result; ``time`` is ISO 8601 in UTC, ``time`` and ``label`` are empty where unknown."""

    rank: int
    distance: float
    path: str
    time: str
    label: str


@dataclass(frozen=True)
class AddReport:
    """What an ``add`` did: paths added, paths whose content was there already, one line for each failure or remark."""

    added: list[str]
    known: list[str]
    failures: list[str]
    remarks: list[str]


@dataclass(frozen=True)
class Rows:
    """All rows of a catalog at one moment, in the order they were added."""

    paths: list[str]
    times: NDArray[np.datetime64]
    labels: NDArray[np.str_]
    hashes: NDArray[np.float32]
    codes: NDArray[np.uint8]

    def vectors(self, metric: str) -> NDArray[Any]:
        """What a metric compares: the codes for "hamming", else the hashes."""
        return self.codes if metric == "hamming" else self.hashes


class Catalog:
    """An archive of hashed images; get one from :meth:`create` or :meth:`open`, and close it or use ``with``."""

    def __init__(self, path: Path, encoder: Encoder) -> None:
        self.path = path
        self.encoder = encoder
        self._lock = threading.RLock()
        self._connection = _connect(path / _DATABASE)
        self._rows: Rows | None = None
        self._version: tuple[int, int] | None = None

    @classmethod
    def create(cls, path: str | os.PathLike[str], encoder: Encoder | str | os.PathLike[str]) -> "Catalog":
        """Make an empty catalog in a folder that does not exist yet, or is empty.

        Raises
        ------
        FastHashError
            Where something is at ``path`` already, or the folder cannot be made.
        """
        target = Path(path)
        if not isinstance(encoder, Encoder):
            encoder = load_encoder(encoder)
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise FastHashError(f"{target}: exists already; a catalog is added to with `fasthash add`")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        except OSError as error:
            raise FastHashError(f"{target}: cannot make a folder here: {error.strerror}") from error
        try:
            with atomic_write(draft / _ENCODER) as file:
                file.write(encoder.data)
            with contextlib.closing(_connect(draft / _DATABASE)) as connection, connection:
                connection.executescript(_SCHEMA)
                about = {"format": str(_FORMAT), "encoder": encoder.fingerprint, "name": encoder.name}
                connection.executemany("INSERT INTO about VALUES (?, ?)", about.items())
            draft.chmod(0o777 & ~UMASK)
            os.replace(draft, target)
            sync_directory(target.parent)
        except OSError as error:
            raise FastHashError(f"{target}: cannot write: {error.strerror or error}") from error
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
        target = Path(path)
        if not (target / _DATABASE).is_file():
            raise FastHashError(f"{target}: no catalog here (no {_DATABASE} in it)")
        encoder = load_encoder(target / _ENCODER)
        catalog = cls(target, encoder)
        try:
            with catalog._reading():
                about = dict(catalog._connection.execute("SELECT key, value FROM about"))
            if about.get("format") != str(_FORMAT):
                raise CorruptFileError(f"{target}: catalog format {about.get('format')}; this fasthash reads {_FORMAT}")
            if about.get("encoder") != encoder.fingerprint or "name" not in about:
                raise CorruptFileError(f"{target / _ENCODER}: not the encoder that this catalog was made with")
        except FastHashError:
            catalog.close()
            raise
        encoder.name = about["name"]
        return catalog

    def close(self) -> None:
        """Close the database; what was added stays."""
        self._connection.close()

    def __enter__(self) -> "Catalog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        with self._reading():
            return int(self._connection.execute("SELECT count(*) FROM images").fetchone()[0])

    def __repr__(self) -> str:
        return f"<Catalog {self.path}: {len(self)} images, encoder {self.encoder.name}>"

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

    def _insert(self, batch: list[Encoded], report: AddReport) -> None:
        added: list[str] = []
        known: list[str] = []
        with self._reading(), self._connection:
            for item in batch:
                image = item.image
                time = None if np.isnat(image.time) else int(image.time.astype(np.int64))
                row = (_storable(image.path), image.digest, time, item.label, item.hash.astype("<f4").tobytes())
                sql = (
                    "INSERT OR IGNORE INTO images (path, digest, time, label, hash, checksum) VALUES (?, ?, ?, ?, ?, ?)"
                )
                cursor = self._connection.execute(sql, (*row, _checksum(*row)))
                (added if cursor.rowcount else known).append(image.path)
        # Acknowledged only now that the transaction is on the disk.
        report.added.extend(added)
        report.known.extend(known)
        report.remarks.extend(f"{item.image.path}: {text}" for item in batch for text in remarks_on(item, self.encoder))

    def rows(self) -> Rows:
        """Every row, checked against its checksum; kept in memory until the database changes.

        Raises
        ------
        CorruptFileError
            Naming the first row whose bytes are not those that were written.
        """
        with self._reading():
            # data_version tells of other connections' commits, total_changes of our own.
            version = self._connection.execute("PRAGMA data_version").fetchone()[0], self._connection.total_changes
            if self._rows is None or version != self._version:
                self._rows, self._version = self._load(), version
            return self._rows

    def _load(self) -> Rows:
        sql = "SELECT path, digest, time, label, hash, checksum FROM images ORDER BY id"
        paths, times, labels, hashes = [], [], [], []
        for number, (*row, checksum) in enumerate(self._connection.execute(sql), start=1):
            if not _is_sound(row, checksum) or len(row[4]) != 4 * self.encoder.dim:
                raise CorruptFileError(f"{self.path / _DATABASE}: row {number} ({row[0]}) is damaged")
            paths.append(os.fsdecode(row[0]))
            times.append(NAT if row[2] is None else np.datetime64(row[2], "ms"))
            labels.append(row[3])
            hashes.append(row[4])
        vectors = np.frombuffer(b"".join(hashes), "<f4").astype(np.float32).reshape(-1, self.encoder.dim)
        codes = self.encoder.binarize(vectors)
        return Rows(paths, np.array(times, "datetime64[ms]"), np.array(labels, np.str_), vectors, codes)

    def search(
        self,
        image: Any,
        k: int = 10,
        metric: str = "l2",
        exclude_within: Span | None = None,
        between: tuple[Any, Any] | None = None,
        label: str | None = None,
    ) -> list[Hit]:
        """The most similar images: exact, ties by the order in which rows were added.

        Parameters
        ----------
        image : path, array (H, W), SunPy map or Image
        k : int
            Results wanted; fewer where fewer rows are allowed.
        metric : "l2", "cosine" (on hashes) or "hamming" (on codes)
        exclude_within : timedelta, text such as "12h", or hours, optional
            Leave out rows within this of the query's time, both ends included; rows without a time stay.
        between : (time, time), optional
            Only rows taken in this span, both ends included; datetime64, datetime or ISO 8601 text, UTC.
        label : str, optional
            Only rows of this label.
        """
        check_int("k", k, 1)
        check_choice("metric", metric, METRICS)
        query = as_image(image)
        rows = self.rows()
        allowed = np.ones(len(rows.paths), bool)
        if exclude_within is not None:
            if np.isnat(query.time):
                raise ArgumentError(f"exclude_within: the query {query.path or 'image'} has no known time")
            allowed &= ~(np.abs(rows.times - query.time) <= as_span("exclude_within", exclude_within))
        if between is not None:
            first, last = _as_interval(between)
            allowed &= (rows.times >= first) & (rows.times <= last)
        if label is not None:
            allowed &= rows.labels == label
        vector = self.encoder.encode(query)
        distances, found = self._nearest(vector, rows, np.flatnonzero(allowed), k, metric)
        return [
            Hit(rank, float(distance), rows.paths[row], format_time(rows.times[row]), str(rows.labels[row]))
            for rank, (distance, row) in enumerate(zip(distances, found, strict=True), start=1)
        ]

    def _nearest(
        self, vector: NDArray[np.float32], rows: Rows, allowed: NDArray[np.int64], k: int, metric: str
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        distances: NDArray[Any]
        if metric == "hamming":
            code = self.encoder.binarize(vector)
            distances, found = knn_hamming(code, rows.codes[allowed], k)
        else:
            distances, found = knn_exact(vector, rows.hashes[allowed], k, metric)
        return distances[0], allowed[found[0]]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """One thread at a time on the connection; SQLite's errors become ours."""
        with self._lock:
            try:
                yield
            except UnicodeDecodeError as error:
                raise CorruptFileError(f"{self.path / _DATABASE}: text that is no text: damaged") from error
            except sqlite3.ProgrammingError as error:
                raise FastHashError(f"{self.path}: this catalog is closed") from error
            except sqlite3.DatabaseError as error:
                kind = FastHashError if isinstance(error, sqlite3.OperationalError) else CorruptFileError
                raise kind(f"{self.path / _DATABASE}: {error}") from error


def remarks_on(item: Encoded, encoder: Encoder) -> Iterator[str]:
    """What a user should know of an encoded image."""
    yield from item.image.remarks
    if np.isnat(item.image.time) and not encoder.timeless:
        yield "no time in its header or name"


def _as_interval(between: Any) -> tuple[np.datetime64, np.datetime64]:
    if not isinstance(between, (tuple, list)) or len(between) != 2:
        raise ArgumentError(f"between: expected two times, got {between!r}")
    return parse_time("between", between[0]), parse_time("between", between[1])


def _connect(path: Path) -> sqlite3.Connection:
    # WAL needs to write beside the database; where one may only read, nobody writes, and SQLite need not look for it.
    frozen = path.exists() and not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists()
    try:
        if frozen:
            uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
            return sqlite3.connect(uri, uri=True, check_same_thread=False)
        connection = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.OperationalError as error:
        raise FastHashError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise CorruptFileError(f"{path}: {error}") from error
    return connection


def _storable(path: str) -> str | bytes:
    """A path as SQLite can hold it: a file name that is no valid text goes in as its bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path


def _is_sound(row: list[Any], checksum: bytes) -> bool:
    try:
        return _checksum(*row) == checksum
    except TypeError:  # damage may change a value's type
        return False


def _checksum(path: str | bytes, digest: str, time: int | None, label: str, vector: bytes) -> bytes:
    text = "\0".join((os.fsdecode(path), digest, str(time), label)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text + b"\0" + vector, digest_size=8).digest()
