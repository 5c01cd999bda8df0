"""What the Linux kernel tells of folders (inotify(7)), through ctypes; elsewhere there is none."""

import ctypes
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

CLOSE_WRITE = 0x8
MOVED_TO = 0x80
CREATE = 0x100
OVERFLOW = 0x4000
IGNORED = 0x8000
IS_FOLDER = 0x40000000
_ONLY_FOLDERS = 0x01000000
_EVENT = struct.Struct("iIII")
_BUFFER = 2**16


class Event(NamedTuple):
    """What happened (bits of the mask above) to ``name`` in ``folder``; both are "" for an overflow."""

    mask: int
    folder: str
    name: str


class Inotify:
    """Notifications of files closed after writing, moved into a folder, and of new folders.

    Raises OSError where the system has no inotify, or has no more watches to give.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(self._libc, "inotify_init1"):
            raise OSError("this system has no inotify")
        self._folders: dict[int, str] = {}
        self.fd = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def _checked(self, result: int) -> int:
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result

    def add(self, folder: str) -> None:
        """Follow a folder, not those in it; one that is followed already, under whatever name, takes this name."""
        mask = CLOSE_WRITE | MOVED_TO | CREATE | _ONLY_FOLDERS
        watch = self._checked(self._libc.inotify_add_watch(self.fd, os.fsencode(folder), mask))
        self._folders[watch] = folder

    def read(self) -> Iterator[Event]:
        """What has happened since the last call; never waits."""
        while True:
            try:
                data = os.read(self.fd, _BUFFER)
            except BlockingIOError:
                return
            start = 0
            while start < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, start)
                start += _EVENT.size + length
                name = os.fsdecode(data[start - length : start].rstrip(b"\0"))
                folder = self._folders.pop(watch, "") if mask & IGNORED else self._folders.get(watch, "")
                if folder or mask & OVERFLOW:
                    yield Event(mask, folder, name)

    def close(self) -> None:
        os.close(self.fd)
