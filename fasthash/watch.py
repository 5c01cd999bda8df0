"""Follow a folder into a catalog: each file that comes is encoded, added durably, and answered if that is wished.

A file is dealt with once its row is in the catalog, or once it is in quarantine: noted in the ledger beside the
catalog, with the reason, and left where it is. Either way it is not tried again unless it changes.
"""

import contextlib
import os
import select
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fasthash._arrivals import Arrival, Arrivals
from fasthash._journal import as_ours
from fasthash._process import ProcessDied
from fasthash._worker import Settings, Worker
from fasthash.errors import CorruptFileError

LEDGER = "watch.sqlite"
# Rows of a transaction at most; a batch also takes no more than this share of the deadline, as far as can be foreseen.
_BATCH = 64
_SHARE = 0.25
_LAGS = 10_000
# How soon a request to stop is noticed, and how long a batch may then take to its end.
_TICK = 0.25
_GRACE = 5.0
_SQL = """
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY,  -- absolute
    size INTEGER,
    mtime_ns INTEGER,
    reason TEXT NOT NULL    -- why it is in quarantine, or empty
) WITHOUT ROWID
"""


@dataclass(frozen=True)
class Metrics:
    """What became of the files since the start.

    added, known, quarantined : files by outcome; known: their content was in the catalog already.
    replaced : processes that had to be replaced, since decoding hung or crashed in them.
    waiting : files found and not dealt with yet, of those that are held in memory.
    seconds : since the start.
    lag_p50, lag_p99 : seconds from a file's last write or move (from the start of the watch, where that was later) to
        its durable row, of the last 10,000 files; None before the first.
    """

    added: int
    known: int
    quarantined: int
    replaced: int
    waiting: int
    seconds: float
    lag_p50: float | None
    lag_p99: float | None

    def __str__(self) -> str:
        counts = f"{self.added} added, {self.known} known, {self.quarantined} quarantined, {self.waiting} waiting"
        lag = "" if self.lag_p50 is None else f"; lag p50 {self.lag_p50:.3g} s, p99 {self.lag_p99:.3g} s"
        return f"{counts}, {self.replaced} processes replaced in {self.seconds:.0f} s{lag}"


class Ledger:
    """Which files were dealt with, as they were then: a restart reads none of them again.

    Losing it costs time, not rows: what is in the catalog is known by its content.
    """

    def __init__(self, catalog: str | os.PathLike[str]) -> None:
        self.path = Path(catalog) / LEDGER
        self.damaged = False
        try:
            self._open()
        except CorruptFileError:
            self.damaged = True
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            self._open()

    def _open(self) -> None:
        """Connect, and read all of it: damage would end a watch later, again and again."""
        with self._errors():
            self._connection = sqlite3.connect(self.path, timeout=30.0, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(_SQL)
            problems = self._connection.execute("PRAGMA integrity_check").fetchone()[0]
            for _ in self._connection.execute("SELECT path, size, mtime_ns, reason FROM files"):
                pass
        if problems != "ok":
            raise CorruptFileError(f"{self.path}: {problems}")

    def close(self) -> None:
        self._connection.close()

    def __contains__(self, arrival: Arrival) -> bool:
        with self._errors():
            sql = "SELECT size, mtime_ns FROM files WHERE path = ?"
            return self._connection.execute(sql, (_key(arrival.path),)).fetchone() == arrival[1:3]

    def note(self, files: Iterable[tuple[Arrival, str]]) -> None:
        """Files that were dealt with, each with the reason why it is in quarantine, or ""."""
        rows = [(_key(arrival.path), arrival.size, arrival.mtime_ns, reason) for arrival, reason in files]
        with self._errors(), self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows)

    def quarantine(self) -> list[tuple[str, str]]:
        """(path, reason) of the files that could not be used, in the order of their paths."""
        with self._errors():
            rows = self._connection.execute("SELECT path, reason FROM files WHERE reason != '' ORDER BY path")
            return [(os.fsdecode(path), reason) for path, reason in rows]

    def release(self) -> int:
        """Forget the files in quarantine, so that they are tried again; returns how many."""
        with self._errors(), self._connection:
            return self._connection.execute("DELETE FROM files WHERE reason != ''").rowcount

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise as_ours(self.path, error) from error


def _key(path: str) -> bytes:
    return os.fsencode(os.path.abspath(path))


class Watch:
    """Follow a folder, and the folders in it, into a catalog.

    Parameters
    ----------
    folder : path
    settings : Settings
        The catalog, and what to do with each file.
    poll : float
        Seconds between looks at the folder, for what the system does not tell of (network file systems), and for which
        a file found so must have stood still. What the system says was closed or moved in is taken at once.
    on_answer : callable(dict)
        Takes the neighbours of each file, where settings.answer is not 0: ``query``, ``time``, ``metric`` and
        ``results`` as `fasthash search --json` prints them. After a crash an answer may come again; none is missed.
    say : callable(str)
        Takes lines for the operator: what was put in quarantine, and why.

    Raises
    ------
    FastHashError
        Where the folder or the catalog cannot be used. What was added before stays.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        settings: Settings,
        poll: float = 2.0,
        on_answer: Callable[[dict[str, Any]], None] = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._on_answer = on_answer
        self._say = say
        self._worker = Worker(settings)
        self._ledger = Ledger(settings.catalog)
        if self._ledger.damaged:
            say(f"{self._ledger.path}: was damaged and is made anew; all of {folder} is read again")
        self._arrivals = Arrivals(os.fspath(folder), self._ledger.__contains__, poll, say)
        self._batch: list[Arrival] = []
        # In work when a process died; each is tried once more, alone.
        self._suspects: deque[Arrival] = deque()
        self._alone = False
        self._sent = 0.0
        self._seconds_a_file = 0.0
        self._start = time.monotonic()
        self._outcomes: Counter[str] = Counter()
        self._replaced = 0
        self._lags: deque[float] = deque(maxlen=_LAGS)
        self._stopping = False

    def stop(self) -> None:
        """Let :meth:`run` return soon: after the batch in work, or without it. For signal handlers, other threads."""
        self._stopping = True

    def metrics(self) -> Metrics:
        p50, p99 = np.quantile(self._lags, [0.5, 0.99]).tolist() if self._lags else (None, None)
        return Metrics(
            added=self._outcomes["added"],
            known=self._outcomes["known"],
            quarantined=self._outcomes["failed"],
            replaced=self._replaced,
            waiting=self._arrivals.waiting + len(self._batch) + len(self._suspects),
            seconds=time.monotonic() - self._start,
            lag_p50=p50,
            lag_p99=p99,
        )

    def run(self) -> None:
        """Work until :meth:`stop`; to be called once."""
        try:
            while not self._stopping:
                due = self._arrivals.look()
                if not self._batch:
                    self._begin()
                if self._is_heard(min(due, _TICK)):
                    self._finish()
            if self._batch and self._is_heard(_GRACE, self._worker.fd):
                self._finish()
        finally:
            self._worker.close()
            self._arrivals.close()
            self._ledger.close()

    def _is_heard(self, timeout: float, *fds: int) -> bool:
        """Wait for news of files or of the worker; whether there are any of the worker."""
        fds = fds or tuple(fd for fd in (self._worker.fd, self._arrivals.fd) if fd is not None)
        return self._worker.fd in select.select(fds, [], [], timeout)[0]

    def _begin(self) -> None:
        """Hand the worker what is there: one file at once, many as a batch."""
        self._alone = bool(self._suspects)
        if self._alone:
            self._batch = [self._suspects.popleft()]
        else:
            foreseen = _SHARE * self._settings.deadline / max(self._seconds_a_file, 1e-9)
            self._batch = self._arrivals.take(max(1, min(_BATCH, int(foreseen))))
        if self._batch:
            self._sent = time.monotonic()
            self._worker.send([arrival.path for arrival in self._batch])

    def _finish(self) -> None:
        """Take the worker's reply to the batch, or its death."""
        batch, self._batch = self._batch, []
        try:
            entries = self._worker.receive()
        except ProcessDied as death:
            self._replaced += 1
            self._worker = Worker(self._settings)
            if self._alone:
                self._close(batch, [{"outcome": "failed", "reason": f"{batch[0].path}: decoding it {death}"}])
            else:
                self._suspects.extend(batch)
            return
        self._seconds_a_file = (time.monotonic() - self._sent) / len(batch)
        self._close(batch, entries)

    def _close(self, batch: list[Arrival], entries: list[dict[str, Any]]) -> None:
        """Answer, note and count what the worker said of each file."""
        dealt_with = []
        for arrival, entry in zip(batch, entries, strict=True):
            self._arrivals.done(arrival)
            if entry["outcome"] != "failed":
                self._lags.append(time.time() - arrival.since)
            elif not os.path.lexists(arrival.path):
                continue  # it was taken away again
            else:
                self._say(f"quarantined: {entry['reason']}")
            if "answer" in entry:
                self._on_answer(entry["answer"])
            dealt_with.append((arrival, entry))
        # After the answers: what a crash keeps from being noted is done again, not missed.
        self._ledger.note((arrival, entry.get("reason", "")) for arrival, entry in dealt_with)
        self._outcomes.update(entry["outcome"] for _, entry in dealt_with)
