"""The published set of radio galaxies (Samudre et al. 2022), fetched from where its authors keep it.

It is a zip in a repository, so the address names a commit. Its content is pinned: a SHA-256 over names and bytes of all
images of train and valid, whatever the packing. Those of test were not at hand when it was pinned, and stand by the
zip's own checksums.
"""

import contextlib
import fcntl
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from fasthash._storage import UMASK, sync_directory
from fasthash._validation import check_choice
from fasthash._version import __version__
from fasthash.errors import ArgumentError, FastHashError, ReadError
from fasthash.radio.dataset import CLASSES, SPLITS, class_of


@dataclass(frozen=True)
class Published:
    """Where a zip is, and the `content_digest` of its train and valid images."""

    url: str
    digest: str


_AT = "https://raw.githubusercontent.com/kiryteo/RG_Classification_code"
SETS = {
    "data": Published(
        f"{_AT}/c1947b8b3bd962fae642b2f367abe1a08588e09a/data.zip",
        "5bba643c2d086d5ee039f16e74252b1007e090155190c82180ce4746d573a4fa",
    ),
    "data-balanced": Published(
        f"{_AT}/36af16147dcf54d54be27d6a35f4e82f6a167fb9/data-balanced.zip",
        "9b7a5d02dc2829fd4713cdb643547467af16df3d0c5e4ee2557c441e8bf89d3e",
    ),
}

_LARGEST = 2**28  # bytes of a zip: ten times what any of these has
_CHUNK = 2**16
_TIMEOUT = 30.0  # seconds without a byte
_WAITS = (1.0, 5.0)  # seconds before each new try


@dataclass(frozen=True)
class Fetched:
    """The zip, whether it was there already, and its images by split: {"train": 1180, …}."""

    path: Path
    present: bool
    counts: dict[str, int]


def fetch(
    out_dir: str | os.PathLike[str],
    name: str = "data",
    url: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fetched:
    """Download a published set as ``OUT/data.zip``; `read_dataset` reads it as it is.

    The file has its name only once it is whole and its content is the one that is pinned. What an interrupted run got
    lies in a hidden file beside it; the next run goes on from there.

    Parameters
    ----------
    name : {"data", "data-balanced"}
        The images as they are, or with train and valid filled up with copies until the classes are equal.
    url : str, optional
        A mirror; its content must be the same.
    progress : callable(done, total), optional
        In bytes.

    Raises
    ------
    FastHashError
        Where the network or the server fails, the content is another, another file has the name, or the folder cannot
        be written.
    """
    check_choice("name", name, tuple(SETS))
    url = url or SETS[name].url
    if not url.startswith(("https://", "http://", "file://")):
        raise ArgumentError(f"url: expected https://, http:// or file://, got {url!r}")
    target = Path(out_dir, f"{name}.zip")
    if target.exists():
        if _holds(target, SETS[name].digest):
            return Fetched(target, True, count_images(target))
        raise FastHashError(f"{target}: there already, and not this set; move it, or name another folder")
    with _part(target) as (file, part):
        _download(url, file, progress)
        try:
            if content_digest(part) != SETS[name].digest:
                raise ReadError("its images are not the ones that were published")
            counts = count_images(part)
        except ReadError as error:
            part.unlink()  # nothing to go on from
            raise FastHashError(f"{url}: not the set that was asked for: {error}") from error
        part.chmod(0o666 & ~UMASK)
        part.replace(target)
        sync_directory(target.parent)
    return Fetched(target, False, counts)


def _holds(path: Path, digest: str) -> bool:
    try:
        return content_digest(path) == digest
    except ReadError:
        return False


# ---- what is in a zip ----------------------------------------------------------------------------------------------


def content_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the names and bytes of all images of train and valid, hexadecimal; ReadError where it is no such zip.

    Over lines ``train/FRI/NAME SHA256``, sorted: how the zip was packed, and what its uppermost folder is called, does
    not matter.
    """
    with _opened(path) as archive:
        lines = []
        for member, (split, label, name) in _members(archive):
            data = archive.read(member)  # which checks its CRC-32
            if split != "test":
                lines.append(f"{split}/{label}/{name} {hashlib.sha256(data).hexdigest()}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def count_images(path: str | os.PathLike[str]) -> dict[str, int]:
    """Images of each split that is there."""
    with _opened(path) as archive:
        found = Counter(split for _, (split, _, _) in _members(archive))
    return {split: found[split] for split in SPLITS if found[split]}


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > _LARGEST:
                raise ReadError(f"unpacks to more than {_LARGEST} bytes")
            yield archive
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error, EOFError, ValueError) as error:
        raise ReadError(f"not a readable zip: {' '.join(str(error).split())[:200]}") from error


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, tuple[str, str, str]]]:
    """The images: each with its split, class and name."""
    for info in archive.infolist():
        parts = PurePosixPath(info.filename).parts
        if len(parts) >= 3 and not info.is_dir() and "__MACOSX" not in parts and not parts[-1].startswith("."):
            split, label = parts[-3], class_of(parts[-2])
            if split in SPLITS and label in CLASSES:
                yield info, (split, label, parts[-1])


# ---- the download --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _part(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """The hidden file that a download grows in, locked against a second run; it stays where the download fails."""
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FastHashError(f"{target}: another fetch is at work on it") from None
            yield file, part
    except OSError as error:
        raise FastHashError(f"{target}: cannot write: {error.strerror or error}") from error


def _download(url: str, file: BinaryIO, progress: Callable[[int, int], None] | None) -> None:
    """Append to ``file`` what is missing of it, trying again where the line breaks."""
    for wait in (*_WAITS, None):
        try:
            _append(url, file, progress)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416:  # what is there is no beginning of what the server has
                file.truncate(0)
            if wait is None or (error.code < 500 and error.code != 416):
                reason = f"HTTP {error.code} {http.client.responses.get(error.code, '')}".rstrip()
                raise FastHashError(f"{url}: {reason}") from error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError) as error:
            if wait is None:
                raise FastHashError(f"{url}: cannot be fetched: {_reason(error)}; run it again to go on") from error
        time.sleep(wait)


def _append(url: str, file: BinaryIO, progress: Callable[[int, int], None] | None) -> None:
    headers = {"User-Agent": f"fasthash/{__version__}"}
    start = file.seek(0, os.SEEK_END)
    if start:
        headers["Range"] = f"bytes={start}-"
    with _answer(url, headers) as response:
        if start and response.status != 206:  # all of it is sent anew
            file.truncate(0)
            start = 0
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else 0  # 0: the server does not tell
        done = start
        for block in _blocks(response):
            done += len(block)
            if max(done, total) > _LARGEST:
                file.truncate(0)
                raise FastHashError(f"{url}: more than {_LARGEST} bytes, which no set has")
            file.write(block)
            if progress is not None:
                progress(done, max(done, total))
        file.flush()
        os.fsync(file.fileno())
    if done < total:
        raise http.client.IncompleteRead(b"", total - done)


def _answer(url: str, headers: dict[str, str]) -> Any:
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.URLError:
        raise
    except OSError as error:  # told from one of the disk
        raise ConnectionError(_reason(error)) from error
    except ValueError as error:
        raise ArgumentError(f"url: {url!r}: {error}") from error


def _blocks(response: Any) -> Iterator[bytes]:
    try:
        while block := response.read(_CHUNK):
            yield block
    except OSError as error:  # told from one of the disk
        raise ConnectionError(_reason(error)) from error


def _reason(error: BaseException) -> str:
    cause = getattr(error, "reason", error)
    return getattr(cause, "strerror", None) or str(cause) or type(error).__name__
