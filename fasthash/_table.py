"""The rows of a catalog in memory: what its journal comes to, column by column.

A Table never changes, so that a search may keep the one it took. The next one shares its columns: new rows go into the
room behind those in use. A file of it is a cache, to open a large catalog without reading all of its journal.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._buffers import appended
from fasthash._journal import START, Entry, Place
from fasthash._storage import read_container, write_container
from fasthash.errors import CorruptFileError

Ints = NDArray[np.int64]
Binarize = Callable[[NDArray[np.float32]], NDArray[np.uint8]]

NO_TIME = np.iinfo(np.int64).min  # NaT
_KIND = "catalog-rows"
_BATCH = 65536  # entries held as Python objects at a time
DETAILS = ("metadata", "cells")
_UNSORTED = 4096  # rows that it costs next to nothing to look through


@dataclass(frozen=True, eq=False)
class Table:
    """All images that were added, in order; those since deleted are ``dead``.

    columns, each with room for more behind: ids int64 (n,), the seq of their entries; digests uint8 (n, 16); times
    int64 (n,), milliseconds, NO_TIME where unknown; labels int32 (n,), numbers of ``label_names``; dead bool (n,);
    hashes float32 (n, dim); codes uint8 (n, n_bytes); path_bytes uint8, and path_ends int64 (n,), where each path ends.
    What few searches need stays in the journal; metadata_checks and cells_checks, uint64 (n,), are its checksums.
    """

    place: Place
    n: int
    columns: Mapping[str, NDArray[Any]]
    label_names: tuple[str, ...] = ()
    n_dead: int = 0
    n_changes: int = 0  # entries that only changed what others had added: compaction drops them
    cached: int = 0  # the seq up to which a file goes
    _by_time: list["Sorted"] = field(default_factory=list)
    _by_digest: list["Sorted"] = field(default_factory=list)

    @classmethod
    def empty(cls, dim: int, n_bytes: int) -> "Table":
        columns: dict[str, NDArray[Any]] = {
            "ids": np.empty(0, np.int64),
            "digests": np.empty((0, 16), np.uint8),
            "times": np.empty(0, np.int64),
            "labels": np.empty(0, np.int32),
            "dead": np.empty(0, np.bool_),
            "hashes": np.empty((0, dim), np.float32),
            "codes": np.empty((0, n_bytes), np.uint8),
            "path_bytes": np.empty(0, np.uint8),
            "path_ends": np.empty(0, np.int64),
            **{f"{name}_checks": np.empty(0, np.uint64) for name in DETAILS},
        }
        return cls(START, 0, columns)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """A column, as far as it is in use."""
        return self.columns[name][: self._used(name)]

    @property
    def n_live(self) -> int:
        return self.n - self.n_dead

    def path(self, row: int) -> str:
        ends = self.columns["path_ends"]
        start = int(ends[row - 1]) if row else 0
        return os.fsdecode(self.columns["path_bytes"][start : int(ends[row])].tobytes())

    def label(self, row: int) -> str:
        return self.label_names[self.columns["labels"][row]]

    def live(self) -> Ints:
        return np.flatnonzero(~self["dead"])

    def rows_of(self, ids: NDArray[Any]) -> Ints:
        """The row of each id, -1 where there is none or it is dead."""
        own = self["ids"]
        if self.n == 0:
            return np.full(len(ids), -1)
        rows = ids.astype(np.int64) - own[0] if own[-1] - own[0] == self.n - 1 else own.searchsorted(ids)
        rows = rows.clip(0, self.n - 1)
        found = own[rows] == ids
        if self.n_dead:
            found &= ~self["dead"][rows]
        return rows if found.all() else np.where(found, rows, -1)

    def taken_between(self, first: int, last: int) -> Ints:
        """Live rows taken from ``first`` to ``last`` milliseconds, both included; rising."""
        return self._living(_by(self._by_time, self["times"]).between(self["times"], max(first, NO_TIME + 1), last))

    def with_digest(self, digest: bytes) -> Ints:
        """Live rows of this content: one or none."""
        keys = self["digests"].view(np.uint64)[:, 0]
        key = np.frombuffer(digest, np.uint64)[0]
        rows = _by(self._by_digest, keys).between(keys, key, key)
        return self._living(rows[(self["digests"][rows] == np.frombuffer(digest, np.uint8)).all(axis=1)])

    def _living(self, rows: Ints) -> Ints:
        return rows[~self["dead"][rows]] if self.n_dead else rows

    # ---- what follows

    def after(self, entries: Iterable[tuple[Entry, Place]], binarize: Binarize) -> "Table":
        """The table once these entries have come, too."""
        table, rest = self, iter(entries)
        while batch := list(islice(rest, _BATCH)):
            table = table._after([entry for entry, _ in batch], batch[-1][1], binarize)
        return table

    def _after(self, entries: list[Entry], place: Place, binarize: Binarize) -> "Table":
        names = {name: number for number, name in enumerate(self.label_names)}
        added = [entry for entry in entries if entry.kind == "add"]
        n = self.n + len(added)
        columns = dict(self.columns)
        if added:
            for name, new in self._new_columns(added, names, binarize).items():
                columns[name] = appended(self.columns[name], self[name], new)
        table = replace(self, place=place, n=n, columns=columns)
        n_dead = self.n_dead
        changes = [entry for entry in entries if entry.kind in ("relabel", "delete")]
        if changes:
            # A search may hold these columns: others take their place.
            columns |= {"labels": columns["labels"].copy(), "dead": columns["dead"].copy()}
            rows = table.rows_of(np.array([entry.image for entry in changes], np.int64))
            for entry, row in zip(changes, rows.tolist(), strict=True):
                if row < 0:
                    raise CorruptFileError(f"entry {entry.seq}: it is about image {entry.image}, which is not there")
                if entry.kind == "delete":
                    n_dead += not columns["dead"][row]
                    columns["dead"][row] = True
                else:
                    columns["labels"][row] = names.setdefault(entry.label or "", len(names))
        return replace(table, label_names=tuple(names), n_dead=n_dead, n_changes=self.n_changes + len(changes))

    def _used(self, name: str) -> int:
        if name != "path_bytes":
            return self.n
        return int(self.columns["path_ends"][self.n - 1]) if self.n else 0

    def _new_columns(self, added: list[Entry], names: dict[str, int], binarize: Binarize) -> dict[str, NDArray[Any]]:
        dim = self.columns["hashes"].shape[1]
        hashes = np.frombuffer(b"".join(entry.hash or b"" for entry in added), "<f4").astype(np.float32)
        digests = np.frombuffer(b"".join(entry.digest or b"" for entry in added), np.uint8)
        if hashes.size != len(added) * dim or digests.size != len(added) * 16:
            raise CorruptFileError(f"entries {added[0].seq} to {added[-1].seq}: not of {dim} numbers and 16 bytes each")
        hashes = hashes.reshape(-1, dim)
        paths = [os.fsencode(entry.path or b"") for entry in added]
        return {
            "ids": np.array([entry.seq for entry in added], np.int64),
            "digests": digests.reshape(-1, 16),
            "times": np.array([NO_TIME if entry.time is None else entry.time for entry in added], np.int64),
            "labels": np.array([names.setdefault(entry.label or "", len(names)) for entry in added], np.int32),
            "dead": np.zeros(len(added), np.bool_),
            "hashes": hashes,
            "codes": binarize(hashes),
            "path_bytes": np.frombuffer(b"".join(paths), np.uint8),
            "path_ends": self._used("path_bytes") + np.cumsum([len(path) for path in paths], dtype=np.int64),
            **{f"{name}_checks": checks([getattr(entry, name) for entry in added]) for name in DETAILS},
        }

    # ---- its file

    def save(self, path: Path) -> "Table":
        """Write the table as one file; gives the same table, which knows that there is one."""
        meta = {"seq": self.place.seq, "seal": self.place.seal.hex(), "label_names": self.label_names}
        meta |= {"n_dead": self.n_dead, "n_changes": self.n_changes}
        write_container(path, _KIND, meta, {name: self[name] for name in self.columns})
        return replace(self, cached=self.place.seq)

    def load(self, path: Path) -> "Table":
        """The table of a file, which must be one of the same widths as this empty one; raises CorruptFileError."""
        meta, columns = read_container(path, _KIND)
        widths = {name: (array.dtype, array.shape[1:]) for name, array in columns.items()}
        if widths != {name: (array.dtype, array.shape[1:]) for name, array in self.columns.items()}:
            raise CorruptFileError(f"{path}: not the rows of this catalog")
        try:
            place = Place(meta["seq"], bytes.fromhex(meta["seal"]))
            counts = meta["n_dead"], meta["n_changes"]
            return Table(place, len(columns["ids"]), columns, tuple(meta["label_names"]), *counts, place.seq)
        except (KeyError, ValueError) as error:
            raise CorruptFileError(f"{path}: not rows as this fasthash keeps them: {error}") from error


def checks(details: Iterable[Any]) -> NDArray[np.uint64]:
    """BLAKE2b-64 of each; of nothing, that of no bytes."""
    parts = (part if isinstance(part, bytes) else str(part or "").encode() for part in details)
    return np.frombuffer(b"".join(hashlib.blake2b(part, digest_size=8).digest() for part in parts), np.uint64)


class Sorted:
    """The order of a column's first rows, which later tables share; the few rows after them are looked through."""

    def __init__(self, keys: NDArray[Any]) -> None:
        self.order = np.argsort(keys, kind="stable")
        self.keys = keys[self.order]

    def between(self, keys: NDArray[Any], first: Any, last: Any) -> Ints:
        """Rows with a key from ``first`` to ``last``, rising."""
        n = len(self.order)
        start, stop = self.keys.searchsorted(first, "left"), self.keys.searchsorted(last, "right")
        rows = np.sort(self.order[start:stop])
        if len(keys) == n:
            return rows
        rest = keys[n:]
        return np.concatenate([rows, n + np.flatnonzero((rest >= first) & (rest <= last))])


def _by(held: list[Sorted], keys: NDArray[Any]) -> Sorted:
    """What is held, or made anew where too many rows have come since; the list is shared by all tables of a line."""
    found = held[-1] if held else None
    if found is None or len(keys) - len(found.order) > max(_UNSORTED, len(keys) // 8) or len(found.order) > len(keys):
        found = Sorted(keys)
        held[:] = [found]
    return found
