"""Which files of a folder are there, whole, and not dealt with yet.

The folder itself is the queue: a scan finds what is in it, now and then again, and holds still while there is no room.
Where the kernel tells of files that were closed or moved in, these need not wait for the next scan, nor to settle.
"""

import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from fasthash import _inotify
from fasthash.errors import FastHashError
from fasthash.io import is_image_name

# Files held in memory at most; what is beyond stays where it is, in the folder.
CAPACITY = 4096
# A scan gives way to other work after this long, and rests this many times as long as it took.
_SLICE = 0.05
_REST = 20


class Arrival(NamedTuple):
    """A file as it was seen; other content under its path has another size or mtime_ns. ``since``: time.time()."""

    path: str
    size: int
    mtime_ns: int
    since: float


class Arrivals:
    """The whole files of a folder and of those in it, hidden ones left out, in the order in which they are found.

    Parameters
    ----------
    folder : str
    is_done : callable(Arrival) -> bool
        Whether a file, as it is now, needs no more work.
    poll : float
        Seconds from one scan of the folder to the next, at least, and for which size and mtime of a file must have
        stood still where nobody said that it was closed.
    remark : callable(str)
        Takes what an operator should know, each line once.
    """

    def __init__(
        self,
        folder: str,
        is_done: Callable[[Arrival], bool],
        poll: float,
        remark: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self._is_done = is_done
        self._poll = poll
        self._remark = remark
        self._remarked: set[str] = set()
        self._inotify: _inotify.Inotify | None = None
        self._start = time.time()
        self._growing: dict[str, tuple[Arrival, float]] = {}  # and when it is due, by the monotonic clock, in order
        self._whole: dict[str, Arrival] = {}
        self._taken: dict[str, Arrival] = {}
        self._walks: deque[Iterator[str]] = deque()  # of the scan under way, and through folders that came since
        self._scan_at = self._scan_from = 0.0
        try:
            self._inotify = _inotify.Inotify()
        except OSError as error:
            self._without_notice(error)

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    @property
    def fd(self) -> int | None:
        """What becomes readable when the kernel has news; None where there is no such thing."""
        return None if self._inotify is None else self._inotify.fd

    @property
    def waiting(self) -> int:
        """Files that are known of and not taken yet."""
        return len(self._growing) + len(self._whole)

    def look(self) -> float:
        """Find out what is new; returns the seconds until it pays to look again."""
        self._hear()
        self._scan_on()
        now = time.monotonic()
        self._let_settle(now)
        due = now if self._walks else self._scan_at
        if self.waiting >= CAPACITY:
            due = now + self._poll
        return max(0.0, min([due, *(at for _, at in islice(self._growing.values(), 1))]) - now)

    def take(self, count: int) -> list[Arrival]:
        """Up to ``count`` whole files to work on; each is to be given back by :meth:`done`."""
        batch = list(islice(self._whole.values(), count))
        for arrival in batch:
            del self._whole[arrival.path]
            self._taken[arrival.path] = arrival
        return batch

    def done(self, arrival: Arrival) -> None:
        del self._taken[arrival.path]

    # ---- the three ways in which a file is found -------------------------------------------------------------------

    def _hear(self) -> None:
        """What the kernel says was closed or moved in is whole."""
        for event in self._inotify.read() if self._inotify is not None else ():
            path = os.path.join(event.folder, event.name)
            if event.mask & _inotify.OVERFLOW:
                self._scan_at = 0.0
            elif event.mask & _inotify.IS_FOLDER:
                if event.mask & (_inotify.CREATE | _inotify.MOVED_TO) and not event.name.startswith("."):
                    self._walks.append(self._walk(path))
            elif event.mask & (_inotify.CLOSE_WRITE | _inotify.MOVED_TO) and is_image_name(event.name):
                if self.waiting >= CAPACITY:
                    self._scan_at = 0.0
                elif (arrival := self._news(path)) is not None:
                    self._growing.pop(path, None)
                    self._whole[path] = arrival

    def _scan_on(self) -> None:
        """Go on with the scan under way, or begin one where it is time, as long as there is room."""
        now = time.monotonic()
        if not self._walks and now >= self._scan_at:
            self._walks.append(self._walk(self.folder))
            self._scan_from, self._scan_at = now, float("inf")
        while self._walks and self.waiting < CAPACITY and time.monotonic() < now + _SLICE:
            path = next(self._walks[0], None)
            if path is None:
                self._walks.popleft()
                if self._walks:
                    continue
                now = time.monotonic()
                self._scan_at = min(self._scan_at, now + max(self._poll, _REST * (now - self._scan_from)))
            elif path not in self._growing and (arrival := self._news(path)) is not None:
                self._growing[path] = arrival, time.monotonic() + self._poll

    def _let_settle(self, now: float) -> None:
        """What a scan found is whole once it stayed the same for a while."""
        while self._growing:
            path, (before, at) = next(iter(self._growing.items()))
            if at > now:
                return
            del self._growing[path]
            arrival = self._news(path)
            if arrival is not None and arrival[:3] == before[:3]:
                self._whole[path] = arrival
            elif arrival is not None:
                self._growing[path] = arrival, now + self._poll

    def _news(self, path: str) -> Arrival | None:
        """The file as it is now; None where it is gone, no file, or as it is waiting, worked on or done already."""
        try:
            about = os.stat(path)
        except OSError:
            return None
        if not stat.S_ISREG(about.st_mode):
            return None
        # The ctime is when a file was written last or came under its name, whatever its mtime says.
        arrival = Arrival(path, about.st_size, about.st_mtime_ns, max(about.st_ctime, self._start))
        for other in (self._whole.get(path), self._taken.get(path)):
            if other is not None and other[:3] == arrival[:3]:
                return None
        return None if self._is_done(arrival) else arrival

    def _walk(self, top: str) -> Iterator[str]:
        folders = [top]
        while folders:
            folder = folders.pop()
            # Before it is listed: what comes meanwhile is heard of or found, and nothing is missed.
            self._follow(folder)
            try:
                with os.scandir(folder) as entries:
                    listed = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                if folder == self.folder:
                    raise FastHashError(f"{folder}: cannot be watched: {error.strerror}") from error
                if not isinstance(error, FileNotFoundError):
                    self._remark_once(f"{folder}: {error.strerror}")
                continue
            inner = [entry.path for entry in listed if entry.is_dir(follow_symlinks=False) and entry.name[0] != "."]
            folders.extend(reversed(inner))
            yield from (entry.path for entry in listed if is_image_name(entry.name) and entry.path not in inner)

    def _follow(self, folder: str) -> None:
        if self._inotify is not None:
            try:
                self._inotify.add(folder)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                pass  # the listing will say so
            except OSError as error:
                self.close()
                self._without_notice(error)

    def _without_notice(self, error: OSError) -> None:
        reason = error.strerror or error
        self._remark_once(f"{self.folder}: the system tells of no new files ({reason}); looking every {self._poll:g} s")

    def _remark_once(self, line: str) -> None:
        if line not in self._remarked:
            self._remarked.add(line)
            self._remark(line)
