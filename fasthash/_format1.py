"""Catalogs of format 1: a table of images, each with a checksum of its own. They become format 2 when opened."""

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fasthash._journal import DATABASE, FORMAT, Entry, as_ours, connect, create_entry, fill, frozen_state
from fasthash.errors import CorruptFileError, FastHashError


def migrate(folder: Path) -> None:
    """Turn the database of a catalog into a journal, if it is of format 1: in one transaction, or not at all.

    Raises CorruptFileError, naming the first row that is not as it was written.
    """
    path = folder / DATABASE
    with contextlib.closing(connect(path, frozen_state(path))) as connection:
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] == FORMAT:
                return
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute("PRAGMA user_version").fetchone()[0] == FORMAT:  # another process was first
                return
            about = dict(connection.execute("SELECT key, value FROM about"))
            if about.get("format") != "1" or not {"encoder", "name"} <= set(about):
                raise CorruptFileError(f"{folder}: catalog format {about.get('format')}; this fasthash reads {FORMAT}")
            fill(connection, _entries(connection, path, about))
            connection.execute("DROP TABLE images")
            connection.execute("DROP TABLE about")
            connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            if "readonly" in str(error):
                raise FastHashError(f"{folder}: catalog format 1, to be opened once where it can be written") from error
            raise as_ours(path, error) from error


def _entries(connection: sqlite3.Connection, path: Path, about: dict[str, str]) -> Iterator[Entry]:
    yield create_entry(about["encoder"], about["name"])
    rows = connection.execute("SELECT path, digest, time, label, hash, checksum FROM images ORDER BY id")
    for number, (*row, checksum) in enumerate(rows, start=1):
        if not _is_sound(row, checksum):
            raise CorruptFileError(f"{path}: row {number} ({row[0]}) is damaged")
        name, digest, time, label, vector = row
        yield Entry(number + 1, "add", None, name, bytes.fromhex(digest), time, label, "", vector)


def _is_sound(row: list[Any], checksum: bytes) -> bool:
    try:
        path, digest, time, label, vector = row
        text = "\0".join((os.fsdecode(path), digest, str(time), label)).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text + b"\0" + vector, digest_size=8).digest() == checksum
    except TypeError:  # damage may change a value's type
        return False
