"""The bytes of a file, in memory or read from the disk where they are asked for.

A file is never mapped: one that is cut short meanwhile would end the process. Nor is it kept open, for there may be
thousands of images at a time; a file that has changed since it was first looked at is refused.
"""

import hashlib
import os
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fasthash.errors import ReadError

CHUNK = 2**20


class Source(Protocol):
    """Bytes that can be asked for by their place."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int, buffer: NDArray[np.uint8] | None = None) -> memoryview:
        """Bytes [start, stop), fewer where there are no more. Raises ReadError where the file cannot be read.

        They may come in the buffer, which is as long as they are or longer; else in memory of their own.
        """


class Memory:
    """Bytes that are in memory already."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)

    def __len__(self) -> int:
        return len(self._data)

    def read(self, start: int, stop: int, buffer: NDArray[np.uint8] | None = None) -> memoryview:  # noqa: ARG002
        """See `Source`."""
        return self._data[start:stop]


class File:
    """A file on the disk. Raises ReadError where it cannot be opened."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._about = _identity(os.stat(path))
        except OSError as error:
            raise _unreadable(error) from error

    def __len__(self) -> int:
        return self._about[0]

    def read(self, start: int, stop: int, buffer: NDArray[np.uint8] | None = None) -> memoryview:
        """See `Source`."""
        size = max(0, min(stop, len(self)) - start)
        view = (np.empty(size, np.uint8) if buffer is None else buffer[:size]).data
        done = 0
        try:
            file = os.open(self._path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            try:
                if _identity(os.fstat(file)) != self._about:
                    raise ReadError("changed while it was read")
                while done < len(view):
                    count = os.preadv(file, [view[done:]], start + done)
                    if count == 0:
                        raise ReadError("cut short while it was read")
                    done += count
            finally:
                os.close(file)
        except OSError as error:
            raise _unreadable(error) from error
        return view


def chunks(source: Source, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
    """Bytes [start, stop) one mebibyte after another."""
    stop = len(source) if stop is None else stop
    for at in range(start, stop, CHUNK):
        yield source.read(at, min(stop, at + CHUNK))


def digest(source: Source) -> str:
    """BLAKE2b-128, hexadecimal."""
    hashed = hashlib.blake2b(digest_size=16)
    for chunk in chunks(source):
        hashed.update(chunk)
    return hashed.hexdigest()


def _identity(about: os.stat_result) -> tuple[int, int, int, int]:
    return about.st_size, about.st_mtime_ns, about.st_ino, about.st_dev


def _unreadable(error: OSError) -> ReadError:
    return ReadError(f"cannot read: {error.strerror or error}")
