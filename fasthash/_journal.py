"""The journal of a catalog: all that ever happened to it, in order, each entry sealed to the one before it.

It is the truth; whatever else a catalog keeps is made from it. SQLite in WAL mode brings an entry to the disk before it
is acknowledged, and lets processes read while one writes. But SQLite trusts its pages, and drops the end of a damaged
log in silence. So each entry bears a seal, BLAKE2b-128 over the seal before it and all of the entry: whatever is
changed, missing or moved breaks it. And a file of 64 bytes beside the database, the mark, says how far entries were
acknowledged: a journal that ends before that has lost some.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import sqlite3
import struct
import threading
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fasthash.errors import CorruptFileError, FastHashError

FORMAT = 2
DATABASE = "catalog.sqlite"
MARK = "catalog.mark"
KINDS = ("create", "add", "relabel", "delete", "compact")

_SCHEMA = """
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY,  -- rises; none comes twice
    kind TEXT NOT NULL,       -- create, add, relabel, delete, compact
    image INTEGER,            -- relabel, delete: the seq of the image's add
    path,                     -- add: text, or bytes where a file's name is no text
    digest BLOB,              -- add: BLAKE2b-128 of the file's bytes
    time INTEGER,             -- add: milliseconds since 1970, UTC
    label TEXT,               -- add, relabel
    metadata TEXT,            -- add: JSON of header cards; create: of the catalog
    hash BLOB,                -- add: float32, little-endian
    cells BLOB,               -- add: the image cell by cell, as its encoder's front end gives it; or NULL
    seal BLOB NOT NULL        -- BLAKE2b-128 of the seal before and all of the above
)
"""
_COLUMNS = "seq, kind, image, path, digest, time, label, metadata, hash, cells, seal"
_INSERT = f"INSERT INTO journal ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SLOT = struct.Struct("<Q16s8s")
_LOCK_SECONDS = 30.0


class Entry(NamedTuple):
    """One change, as the columns of the table say."""

    seq: int
    kind: str
    image: int | None = None
    path: str | bytes | None = None
    digest: bytes | None = None
    time: int | None = None
    label: str | None = None
    metadata: str | None = None
    hash: bytes | None = None
    cells: bytes | None = None


class Place(NamedTuple):
    """A place in the journal: how far one has read, and the seal that is there."""

    seq: int
    seal: bytes


START = Place(0, b"")


class Rewritten(Exception):
    """The journal no longer holds the place that one had read to: it was compacted, or another put in its stead."""


class Journal:
    """The entries of one catalog; its threads take turns in reading, and any number of processes may have one open."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / DATABASE
        self._mark = folder / MARK
        self._times_opened = 0
        self._open_reader()
        self._writer: sqlite3.Connection | None = None
        self.writing = threading.RLock()  # held to write, and taken before any other lock

    @classmethod
    def create(cls, folder: Path, encoder: str, name: str) -> None:
        """Make the files of a journal in an empty folder, for hashes of an encoder: its fingerprint and its name."""
        with contextlib.closing(connect(folder / DATABASE, None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                fill(connection, [create_entry(encoder, name)])
                connection.execute("COMMIT")
            except sqlite3.DatabaseError as error:
                raise as_ours(folder / DATABASE, error) from error
        (folder / MARK).write_bytes(bytes(2 * _SLOT.size))  # whatever happens to the disk, there is room for it

    def _open_reader(self) -> None:
        self._frozen = frozen_state(self.path)
        self._reader = connect(self.path, self._frozen)
        self._times_opened += 1

    def close(self) -> None:
        """Close the files, once nobody writes any more: SQLite does not survive losing them in the midst of it."""
        with self.writing:
            self._frozen = None
            self._reader.close()
            if self._writer is not None:
                self._writer.close()

    # ---- reading

    def about(self) -> dict[str, Any]:
        """What the first entry says."""
        first = next(self._rows("WHERE seq = 1", ()), None)
        if first is None or first[1].seal != seal(b"", first[0]) or first[0].kind != "create":
            raise CorruptFileError(f"{self.path}: entry 1 is damaged")
        about: dict[str, Any] = json.loads(first[0].metadata or "")
        return about

    def version(self) -> tuple[int, int]:
        """Numbers that are others once any process has written."""
        if self._frozen is not None and frozen_state(self.path) != self._frozen:
            self._reader.close()
            self._open_reader()
        with self._guarded():
            return self._times_opened, int(self._reader.execute("PRAGMA data_version").fetchone()[0])

    def after(self, place: Place) -> Iterator[tuple[Entry, Place]]:
        """The entries that follow a place, each with its own, as they were when the first of them was read.

        Raises Rewritten where that place is there no more, and CorruptFileError, naming the first entry that is not as
        it was written, or where acknowledged ones are missing at the end.
        """
        acknowledged = self._acknowledged()  # before the entries: they may become more meanwhile
        rows = self._rows("WHERE seq >= ? ORDER BY seq", (place.seq,))
        if place != START and next(rows, (None, START))[1] != place:
            raise Rewritten
        for entry, found in rows:
            if found.seal != seal(place.seal, entry):
                named = f" ({os.fsdecode(entry.path)})" if isinstance(entry.path, (str, bytes)) else ""
                raise CorruptFileError(f"{self.path}: entry {entry.seq}{named} is damaged, or one before it is missing")
            place = found
            yield entry, place
        if place.seq < acknowledged.seq or (place.seq == acknowledged.seq and place != acknowledged):
            raise CorruptFileError(
                f"{self.path}: ends with entry {place.seq}, but {acknowledged.seq} was acknowledged: restore it (with "
                f"{DATABASE}-wal where there is one), or delete {self._mark} to do without what is lost"
            )

    def holds(self, place: Place) -> bool:
        """Whether that seal is at that place: then all before it is as it was when somebody read it."""
        with self._guarded():
            row = self._reader.execute("SELECT seal FROM journal WHERE seq = ?", (place.seq,)).fetchone()
        return row is not None and row[0] == place.seal

    def details(self, name: str, after: int) -> list[tuple[int, Any]]:
        """Of each image added after entry ``after`` its seq and one column; for the caller to check."""
        with self._guarded():
            sql = f"SELECT seq, {name} FROM journal WHERE seq > ? AND kind = 'add' ORDER BY seq"
            return self._reader.execute(sql, (after,)).fetchall()

    def _rows(self, where: str, values: tuple[int, ...]) -> Iterator[tuple[Entry, Place]]:
        with self._guarded():
            for *row, found in self._reader.execute(f"SELECT {_COLUMNS} FROM journal {where}", values):
                yield Entry(*row), Place(row[0], found)

    # ---- writing

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Nobody else writes, in any process; all that was written in it is on the disk at its end, or nothing."""
        with self.writing, self._guarded():
            if self._writer is None:
                self._writer = connect(self.path, frozen_state(self.path))
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                raise

    def shrink(self) -> None:
        """Give the room of what was dropped back to the file system."""
        with self.writing, self._guarded():
            if self._writer is not None:
                self._writer.execute("VACUUM")

    def acknowledge(self, place: Place) -> None:
        """Note that entries up to a place are on the disk and somebody will hear of it.

        The note is a guard against damage to what is on the disk already, so it need not wait for the disk itself.
        """
        slot = place.seq.to_bytes(8, "little") + place.seal
        try:
            with self._mark.open("r+b" if self._mark.exists() else "w+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                slots = [_as_place(file.read(_SLOT.size)) for _ in range(2)]
                if place.seq > max(each.seq for each in slots):
                    # The older one goes: should this write be cut short, the other stays.
                    file.seek(_SLOT.size * (slots[0].seq > slots[1].seq))
                    file.write(slot + _check(slot))
        except OSError as error:
            raise FastHashError(f"{self._mark}: cannot write: {error.strerror or error}") from error

    def _acknowledged(self) -> Place:
        try:
            data = self._mark.read_bytes()
        except OSError:
            return START
        return max(_as_place(data[: _SLOT.size]), _as_place(data[_SLOT.size : 2 * _SLOT.size]))

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """SQLite's errors become ours."""
        try:
            yield
        except sqlite3.ProgrammingError as error:
            raise FastHashError(f"{self.path.parent}: this catalog is closed") from error
        except sqlite3.DatabaseError as error:
            raise as_ours(self.path, error) from error


def create_entry(encoder: str, name: str) -> Entry:
    """The first entry of a catalog, different from that of any other catalog."""
    about = {"format": FORMAT, "encoder": encoder, "name": name, "catalog": uuid.uuid4().hex}
    return Entry(1, "create", metadata=json.dumps(about))


def fill(connection: sqlite3.Connection, entries: Iterable[Entry]) -> Place:
    """Make the table, and write the first entries; tell the place after them."""
    connection.execute(_SCHEMA)
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    return append(connection, START, entries)


def append(connection: sqlite3.Connection, place: Place, entries: Iterable[Entry]) -> Place:
    """Write entries that follow a place, within a transaction; tell the place after them."""
    for entry in entries:
        place = Place(entry.seq, seal(place.seal, entry))
        connection.execute(_INSERT, (*entry, place.seal))
    return place


def rewrite(connection: sqlite3.Connection, entries: Iterable[Entry], seq: int) -> Place:
    """Put these entries in the place of all there are, within a transaction; at ``seq`` one that says so follows.

    So no place of before is found again, though numbers stay.
    """
    connection.execute("ALTER TABLE journal RENAME TO outdated")
    place = append(connection, fill(connection, entries), [Entry(seq, "compact")])
    connection.execute("DROP TABLE outdated")
    return place


def seal(before: bytes, entry: Entry) -> bytes:
    """BLAKE2b-128 of the seal before and the entry; of values that no entry can have: nothing."""
    seq, kind, image, path, digest, time, label, metadata, hash_, cells = entry
    try:
        sizes = [None if part is None else len(part) for part in (digest, hash_, cells)]
        text = json.dumps([seq, kind, image, os.fsdecode(path or b""), time, label, metadata, *sizes])
        return hashlib.blake2b(
            b"".join((before, text.encode(), digest or b"", hash_ or b"", cells or b"")), digest_size=16
        ).digest()
    except TypeError:  # damage may change a value's type
        return b""


def as_ours(path: Path, error: sqlite3.DatabaseError) -> FastHashError:
    """The error to raise for one of SQLite's; a damaged file may look like one that lacks a table."""
    looks = ("no such", "Could not decode", "unsupported file format")
    damaged = not isinstance(error, sqlite3.OperationalError) or str(error).startswith(looks)
    return (CorruptFileError if damaged else FastHashError)(f"{path}: {error}")


def _as_place(slot: bytes) -> Place:
    """The place in a slot of the mark; the start where it is empty or damaged."""
    if len(slot) != _SLOT.size or _check(slot[:-8]) != slot[-8:]:
        return START
    return Place(*_SLOT.unpack(slot)[:2])


def _check(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()


def frozen_state(path: Path) -> tuple[int, int, int] | None:
    """How a database is that one may only read, and that nobody writes to at the moment; None of any other."""
    if not path.exists() or os.access(path.parent, os.W_OK) or Path(f"{path}-wal").exists():
        return None
    about = path.stat()
    return about.st_ino, about.st_mtime_ns, about.st_size


def connect(path: Path, frozen: tuple[int, int, int] | None) -> sqlite3.Connection:
    """Open a database, or make one; ``frozen``: its `frozen_state`."""
    # WAL needs to write beside the database. Where one may not, SQLite is told that nobody else does either; that
    # holds as long as the state stays the same.
    uri = (
        f"{path.absolute().as_uri()}?{'mode=ro&immutable=1' if frozen else 'mode=rw' if path.exists() else 'mode=rwc'}"
    )
    try:
        connection = sqlite3.connect(
            uri, uri=True, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False
        )
        if frozen is None:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.DatabaseError as error:
        raise as_ours(path, error) from error
    return connection
