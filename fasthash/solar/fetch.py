"""Real magnetograms of SDO/HMI, fetched from JSOC at Stanford. Sole user of sunpy.net, drms and parfive.

JSOC keeps pixels and keywords apart, and is asked in three steps: which records there are; to write some of them as
FITS files (an export, which waits in a queue); for these files. SunPy does the asking. Here is what it leaves open:
what is on the disk already, what can be used, when to try again, and that a file appears whole or not at all.

A frame is known by its T_REC, a slot of TAI. All slots of a request can be told beforehand, so a second run asks only
for what the first did not get.
"""

import contextlib
import fcntl
import functools
import http.client
import importlib
import logging
import os
import re
import shutil
import signal
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._fits import image_end
from fasthash._storage import UMASK, sync_directory
from fasthash._validation import check_choice
from fasthash._version import __version__
from fasthash.errors import ArgumentError, FastHashError, MissingDependencyError, ReadError
from fasthash.io import read_image
from fasthash.times import Span, as_span, parse_time, tai_minus_utc

REGISTER = "http://jsoc.stanford.edu/ajax/register_email.html"


@dataclass(frozen=True)
class Series:
    """Seconds between slots, and the bit of QUALITY that tells an eclipse, which differs between the two pipelines."""

    step: int
    eclipse: int


# QUALITY: HMI_IQUV_averaging.c makes the 720 s series, HMI_observables.c the 45 s one; the bits' meanings are in
# http://jsoc.stanford.edu/doc/data/hmi/Quality_Bits/QUALITY.txt. Most bits tell of small things: good frames have some.
SERIES = {"hmi.M_720s": Series(720, 0x200), "hmi.M_45s": Series(45, 0x100)}
NO_DATA = 0x80000000  # no image was made: the record is empty
POOR = 0x20  # "careful when using": lunar transit, thermal recovery, open image stabilisation

# Frames in one export. JSOC refuses more than 100 GB (some 7,000 frames) and works on one export of a user at a time.
# A day of the 720 s series, 1.7 GB, is ready in minutes and little to lose; and the times of 120 records, which a
# resumed run lists one by one, make a URL of 4 kB, within the 8 kB that web servers take.
BLOCK = 120
_MOST_FRAMES = 10**6
# Seconds before each new try: a hiccup, a restart, an export of an earlier run that is still in the queue.
_WAITS = (10.0, 60.0, 300.0)
_POLL = 5.0  # seconds between looks at an export
_PATIENCE = 3600.0  # seconds that an export may take
_TEMPORARY = ".fasthash-fetch"
_HEAD = 2**18  # bytes that hold the headers of an HMI file ten times over

_Slot = np.datetime64  # [s], TAI


@dataclass
class Report:
    """What became of the frames that were asked for, by T_REC.

    fetched : files that are new.
    present : number of files that were there already, whole.
    unusable : frames of which JSOC has no image, or one that shows an eclipse, and why: trying again changes nothing.
    failed : frames that could not be had, and why: a second run may get them.
    poor : fetched frames that HMI's QUALITY calls poor.
    """

    fetched: list[Path] = field(default_factory=list)
    present: int = 0
    unusable: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    poor: list[str] = field(default_factory=list)


def fetch(
    out_dir: str | os.PathLike[str],
    start: Any,
    end: Any,
    cadence: Span,
    email: str,
    series: str = "hmi.M_720s",
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Report:
    """Fetch line-of-sight magnetograms of SDO/HMI into a folder, one FITS file a frame, named by T_REC.

    Files that are there and whole are not asked for again. May be interrupted or killed at any moment: every file
    under its name is whole, and the next call goes on.

    Parameters
    ----------
    start, end : str, datetime.datetime or numpy.datetime64
        UTC; ``end`` is not included. The first frame is the one of the slot nearest to ``start``.
    cadence : timedelta, str or float
        Time between frames (``"1h"``; a number means hours), a multiple of the series' 720 s or 45 s.
    email : str
        An address registered at JSOC, see `REGISTER`.
    series : {"hmi.M_720s", "hmi.M_45s"}
    progress : callable, optional
        Called with (done, total) after every frame; those that were there already are left out of both.
    say : callable, optional
        Called with a line of text when something is being waited for.

    Raises
    ------
    ArgumentError, MissingDependencyError
    FastHashError
        Where the address is not registered, or the folder cannot be written. Frames that could not be had are no error
        here, but in the report.
    """
    slots = frame_slots(start, end, cadence, series)
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", email):
        raise ArgumentError(f"email: expected an address registered at {REGISTER}, got {email!r}")
    _check_installed()
    with _work_folder(Path(out_dir)) as temporary, _quiet():
        run = _Run(Path(out_dir), temporary, series, email, slots, progress, say)
        run.fetch_all()
    return run.report


def frame_slots(start: Any, end: Any, cadence: Span, series: str) -> NDArray[np.datetime64]:
    """T_REC of all frames from ``start`` until before ``end`` (UTC): datetime64[s], TAI. Raises ArgumentError."""
    check_choice("series", series, tuple(SERIES))
    step = SERIES[series].step
    first, last = parse_time("start", start), parse_time("end", end)
    if not first < last:
        raise ArgumentError(f"end: expected a time after the start, {start}, got {end}")
    every = as_span("cadence", cadence) / np.timedelta64(1, "s")
    if every < step or every % step:
        raise ArgumentError(f"cadence: {series} has a frame every {step} s; expected a multiple of that, got {cadence}")
    count = int(np.ceil((last - first) / np.timedelta64(1, "s") / every))
    if count > _MOST_FRAMES:
        raise ArgumentError(f"end: {count} frames until then; expected at most {_MOST_FRAMES}")
    # Slots are counted from midnight TAI: both steps divide a day.
    tai = (first + tai_minus_utc(first)).astype(np.int64) / 1000
    return (round(tai / step) * step + int(every) * np.arange(count)).astype("datetime64[s]")


def file_name(series: str, slot: _Slot) -> str:
    """``hmi.M_720s.20140131_120000_TAI.fits``."""
    return f"{series}.{re.sub('[-:]', '', str(slot)).replace('T', '_')}_TAI.fits"


def _t_rec(slot: _Slot) -> str:
    return str(slot).replace("-", ".").replace("T", "_") + "_TAI"


def _parse_t_rec(text: str) -> _Slot | None:
    """The slot in ``2014.01.31_12:00:00.000_TAI``, or in a file's name."""
    match = re.search(r"(\d{4})\.?(\d\d)\.?(\d\d)_(\d\d):?(\d\d):?(\d\d)(?:\.0+)?_TAI", str(text))
    if match is None:
        return None
    year, month, day, *clock = match.groups()
    with contextlib.suppress(ValueError):  # the 31st of February
        return np.datetime64(f"{year}-{month}-{day}T{':'.join(clock)}", "s")
    return None


def _parse_quality(text: Any) -> int:
    """The 32 bits of ``0x00010400`` or ``-2147483648``; those of an empty record where there is no number."""
    number = str(text).strip().lower()
    try:
        return int(number, 16 if number.startswith("0x") else 10) & 0xFFFFFFFF
    except ValueError:  # MISSING
        return NO_DATA


def _check_installed() -> None:
    try:
        for package in ("sunpy.net", "drms", "parfive"):
            importlib.import_module(package)
    except ImportError as error:
        message = f"fetching needs sunpy[net] and drms ({error}): pip install 'fasthash[solar]'"
        raise MissingDependencyError(message) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep those below from telling of every look at an export and every failed try."""
    loggers = [logging.getLogger(name) for name in ("drms", "sunpy", "parfive")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# ---- the folder ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _work_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder for half-made files within ``folder``, which is made, and locked against a second run."""
    lock = _lock(folder)
    temporary = folder.absolute() / _TEMPORARY
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
        try:
            temporary.mkdir()
        except OSError as error:
            raise FastHashError(f"{folder}: cannot write here: {error.strerror}") from error
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


def _lock(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise FastHashError(f"{folder}: cannot make this folder: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # goes with the process, however it ends
    except OSError as error:
        os.close(descriptor)
        busy = isinstance(error, BlockingIOError)
        text = "another fetch is at work in this folder" if busy else f"cannot be locked: {error.strerror}"
        raise FastHashError(f"{folder}: {text}") from error
    return descriptor


def _is_whole(path: Path) -> bool:
    """Whether a file is as long as its headers say. Enough for files that took their names once they were read."""
    try:
        with path.open("rb") as file:
            return image_end(file.read(_HEAD)) <= os.fstat(file.fileno()).st_size
    except (OSError, ReadError):
        return False


# ---- one run -------------------------------------------------------------------------------------------------------


@dataclass
class _Run:
    folder: Path
    temporary: Path
    series: str
    email: str
    slots: NDArray[np.datetime64]
    progress: Callable[[int, int], None] | None
    say: Callable[[str], None] | None
    report: Report = field(default_factory=Report)
    reasons: dict[_Slot, str] = field(default_factory=dict)
    arrived: set[_Slot] = field(default_factory=set)
    quality: dict[_Slot, int] = field(default_factory=dict)
    export: tuple[Any, Any] | None = None  # the client and the export that is waited for

    @property
    def every(self) -> int:
        """Seconds between frames."""
        step = SERIES[self.series].step
        return step if len(self.slots) < 2 else int((self.slots[1] - self.slots[0]).astype(np.int64))

    def fetch_all(self) -> None:
        """Fetch block by block what is not there yet; stop where JSOC cannot be talked to, as the next one would."""
        blocks = []
        for i in range(0, len(self.slots), BLOCK):
            block = [slot for slot in self.slots[i : i + BLOCK] if not _is_whole(self._path(slot))]
            self.report.present += len(self.slots[i : i + BLOCK]) - len(block)
            blocks.append(block)
        self._show()
        for i, block in enumerate(blocks):
            if block and not self._fetch_block(block):
                for slot in (slot for later in blocks[i + 1 :] for slot in later):
                    self.report.failed[_t_rec(slot)] = "not tried, after the ones before it"
                break

    def _fetch_block(self, block: list[_Slot]) -> bool:
        """Fetch these frames, trying again what failed; false where the last try did not get as far as a file."""
        downloader = _make_downloader(self)
        results: Any = None
        general = ""
        for wait in (0.0, *_WAITS):
            if wait:
                why = general or next((self.reasons[slot] for slot in block if slot in self.reasons), "frames missing")
                self._say(f"{len(block)} frames to be tried again in {wait:g} s: {why}")
                time.sleep(wait)
            general = ""
            try:
                if results is not None and {_parse_t_rec(error.url) for error in results.errors} >= set(block):
                    results = self._retry(results, downloader)
                else:
                    results = self._export(self._usable(block), downloader)
            except FastHashError:
                raise
            except Exception as error:  # network, JSON and pandas between them raise anything
                general, results = _reason(error), None
            block = [s for s in block if s not in self.arrived and _t_rec(s) not in self.report.unusable]
            if not block:
                return True
        for slot in block:
            self.report.failed[_t_rec(slot)] = general or self.reasons.get(slot, "not in what JSOC exported")
        return not general

    def _usable(self, block: list[_Slot]) -> list[_Slot]:
        """Those of the frames that JSOC has a usable image of; the others are reported."""
        import drms

        span = f"{_t_rec(block[0])}-{_t_rec(block[-1])}@{self.every}s"
        # Raw, since drms 0.9.0 with pandas 3 makes NaN of numbers such as 0x00010400 (its issue 167).
        table = drms.Client().query(f"{self.series}[{span}]", key="T_REC, QUALITY", convert_numeric=False)
        for text, quality in zip(table["T_REC"], table["QUALITY"], strict=True) if "T_REC" in table else ():
            slot, number = _parse_t_rec(text), _parse_quality(quality)
            if slot is not None:  # of two cameras' records the one with an image counts
                self.quality[slot] = min(number, self.quality.get(slot, number))
        usable = []
        for slot in block:
            why = self._why_not(slot)
            if why:
                self.report.unusable[_t_rec(slot)] = why
            else:
                usable.append(slot)
        self._show()
        return usable

    def _why_not(self, slot: _Slot) -> str:
        if slot not in self.quality:
            return "JSOC has no record of it"
        if self.quality[slot] & NO_DATA:
            return "no image was made"
        return "taken during an eclipse" if self.quality[slot] & SERIES[self.series].eclipse else ""

    def _export(self, wanted: list[_Slot], downloader: Any) -> Any:
        """Have JSOC write these frames as FITS files, and download them; parfive's Results, or None for none.

        An export that is under way when a look at it fails is not asked for a second time: JSOC would refuse that.
        """
        import drms

        if not wanted:
            return None
        client, request = self.export = self.export or self._ask(wanted)
        try:
            if not request.wait(timeout=_PATIENCE, sleep=_POLL):
                raise TimeoutError(f"export {request.id} has been in JSOC's queue for {_PATIENCE / 60:.0f} minutes")
        except drms.DrmsExportError:
            self.export = None
            raise
        self.export = None
        return downloader.run(functools.partial(client.get_request, request, path=self._pattern(), progress=False))

    def _ask(self, wanted: list[_Slot]) -> tuple[Any, Any]:
        """The client and the export that it asked for."""
        records = self._search(wanted)
        if not len(records):
            raise LookupError(f"JSOC lists records of {self.series}, but does not find them again")
        try:
            request = records.client.request_data(records)
        except ValueError as error:
            if "not registered" not in str(error):
                raise
            raise FastHashError(f"email: JSOC does not know {self.email}; register it at {REGISTER}") from error
        if not request.has_failed(skip_update=True):
            self._say(f"JSOC prepares {len(wanted)} frames from {_t_rec(wanted[0])}: export {request.id}")
        return records.client, request

    def _search(self, wanted: list[_Slot]) -> Any:
        """Fido's answer for exactly these frames: as a range, or where it has gaps, one by one."""
        import astropy.units as u
        from astropy.time import Time
        from sunpy.net import Fido
        from sunpy.net import attrs as a

        when = a.jsoc.PrimeKey("T_REC", ",".join(_t_rec(slot) for slot in wanted))
        if wanted[-1] - wanted[0] == (len(wanted) - 1) * np.timedelta64(self.every, "s"):
            first, last = (Time(str(wanted[i]), scale="tai") for i in (0, -1))
            when = a.Time(first, last) & a.Sample(self.every * u.s)
        what = a.jsoc.Series(self.series) & a.jsoc.Segment("magnetogram")
        return Fido.search(when, what, a.jsoc.Notify(self.email))[0]

    def _retry(self, results: Any, downloader: Any) -> Any:
        from sunpy.net import Fido

        return downloader.run(functools.partial(Fido.fetch, results, path=self._pattern()))

    def _pattern(self) -> str:
        """The temporary folder as SunPy takes it: a format string."""
        return re.sub(r"([{}])", r"\1\1", str(self.temporary)) + "/{file}"

    def _path(self, slot: _Slot) -> Path:
        return self.folder / file_name(self.series, slot)

    def take(self, path: Path, url: str) -> None:
        """Read a downloaded file through, and give it its name; raises OSError where that cannot be written."""
        try:
            header = read_image(path).header
            slot = _parse_t_rec(header.get("T_REC", ""))
            if slot is None or slot not in self.quality:
                raise ReadError(f"{path}: T_REC is {header.get('T_REC')}, which was not asked for")
            if slot not in self.arrived:
                self._keep(path, slot)
        except ReadError as error:
            self.note(url, str(error).removeprefix(f"{path}: "))
        finally:
            path.unlink(missing_ok=True)

    def note(self, url: str, reason: str) -> None:
        """Remember why the frame of this address did not come."""
        slot = _parse_t_rec(url)
        if slot is not None:
            self.reasons[slot] = reason

    def _keep(self, path: Path, slot: _Slot) -> None:
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.chmod(0o666 & ~UMASK)
        path.replace(self._path(slot))
        sync_directory(self.folder)
        self.arrived.add(slot)
        self.report.fetched.append(self._path(slot))
        if self.quality[slot] & POOR:
            self.report.poor.append(_t_rec(slot))
        self._show()

    def _say(self, line: str) -> None:
        if self.say:
            self.say(line)

    def _show(self) -> None:
        total = len(self.slots) - self.report.present
        if self.progress and total:
            self.progress(len(self.report.fetched) + len(self.report.unusable), total)


# ---- parfive -------------------------------------------------------------------------------------------------------


def _make_downloader(run: _Run) -> Any:
    """parfive's downloader, one connection as JSOC wants it; it hands each file to ``run`` as soon as it is there."""
    import parfive

    class OneByOne(parfive.Downloader):  # type: ignore[misc]
        def __init__(self) -> None:
            agent = f"fasthash/{__version__} parfive/{parfive.__version__}"
            config = parfive.SessionConfig(
                headers={"User-Agent": agent}, done_callbacks=[self._done], file_progress=False
            )
            super().__init__(max_conn=1, max_splits=1, progress=False, overwrite=True, config=config)
            self._interrupted = False
            self._loop: Any = None
            self._broken: Exception | None = None

        def run(self, download: Callable[..., Any]) -> Any:
            """What ``download`` returns. Ctrl-C and a full disk, which parfive takes for failed files, are raised."""
            before = signal.getsignal(signal.SIGINT)
            try:
                results = download(downloader=self)
            except Exception:
                if not self._interrupted:
                    raise
            finally:
                if self._loop:
                    self._loop.close()  # else it would take Ctrl-C away again, whenever it is collected
                    self._loop = None
                    signal.signal(signal.SIGINT, before)
            if self._interrupted:
                raise KeyboardInterrupt
            if isinstance(self._broken, OSError):
                raise FastHashError(f"{run.folder}: cannot write: {self._broken.strerror}") from self._broken
            if self._broken:
                raise self._broken
            return results

        def _done(self, path: Any, url: str, error: BaseException | None) -> None:
            if error is not None:
                run.note(url, _reason(error))
                return
            try:
                if self._broken is None:
                    run.take(Path(path), url)
            except Exception as problem:  # raised here, it would be taken for a failed download
                self._broken = problem

        def _add_shutdown_signals(self, loop: Any, task: Any) -> None:
            def stop() -> None:
                self._interrupted = True
                task.cancel()

            if threading.current_thread() is threading.main_thread():
                self._loop = loop
                loop.add_signal_handler(signal.SIGINT, stop)

        async def _blocking_write_worker(self, queue: Any, file_pb: Any, filepath: Any) -> None:
            """Without this a write that fails, as on a full disk, leaves parfive waiting for ever."""
            try:
                await super()._blocking_write_worker(queue, file_pb, filepath)
            except OSError as error:
                self._broken = error
                queue.task_done()
                while True:
                    await queue.get()
                    queue.task_done()

    return OneByOne()


def _reason(error: Any) -> str:
    """In a few words, on one line."""
    for within in ("exception", "response"):  # of parfive's FailedDownload and MultiPartDownloadError
        if hasattr(error, within):
            return _reason(getattr(error, within))
    status = getattr(error, "status", None)  # of aiohttp's ClientResponse, of urllib's HTTPError
    if isinstance(status, int):
        return f"HTTP {status} {http.client.responses.get(status, '')}".rstrip()
    if isinstance(error, urllib.error.URLError):
        return f"JSOC cannot be reached: {getattr(error.reason, 'strerror', None) or error.reason}"
    text = " ".join(str(error).split()) or "no details"
    return text if isinstance(error, (TimeoutError, LookupError)) else f"{type(error).__name__}: {text}"
