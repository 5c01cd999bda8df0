"""How fasthash writes files: whole or not at all, and checked to the last byte when read.

Layout of a container (all integers little-endian)::

    8 bytes   magic "FASTHASH"
    4 bytes   uint32 format version
    4 bytes   uint32 length of the header
    header    UTF-8 JSON: {"kind", "meta", "arrays": [{"name", "dtype", "shape"}, ...]}
    payload   the arrays, each padded to a multiple of 64 bytes
    32 bytes  BLAKE2b-256 of everything before it
"""

import contextlib
import hashlib
import json
import math
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fasthash._validation import as_path
from fasthash.errors import CorruptFileError, FastHashError

MAGIC = b"FASTHASH"
VERSION = 1
_HEAD = struct.Struct("<8sII")
_DIGEST_SIZE = 32
_ALIGN = 64
# Asking for it means setting it, for all threads: once, at import.
UMASK = os.umask(0)
os.umask(UMASK)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``; it takes the name ``path`` only once it is whole and on the disk.

    Others may write it by its ``name``.
    """
    target = Path(as_path(path))
    try:
        fd, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    except OSError as error:
        raise FastHashError(f"{target}: cannot write here: {error.strerror}") from error
    os.close(fd)
    try:
        with open(name, "wb") as file:  # noqa: PTH123
            yield file
        with open(name, "r+b") as file:  # noqa: PTH123 (who writes it by its name may have put another in its place)
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~UMASK)
        os.replace(name, target)
        sync_directory(target.parent)
    except OSError as error:
        raise FastHashError(f"{target}: cannot write: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def sync_directory(directory: Path) -> None:
    """Bring a folder's list of names to the disk."""
    if os.name == "posix":
        fd = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_container(
    path: str | os.PathLike[str], kind: str, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write ``arrays`` and JSON-able ``meta`` as one checksummed file of a ``kind``, atomically."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    entries = [{"name": n, "dtype": a.dtype.str, "shape": list(a.shape)} for n, a in contiguous.items()]
    header = json.dumps({"kind": kind, "meta": dict(meta), "arrays": entries}).encode()
    header += b" " * (-(_HEAD.size + len(header)) % _ALIGN)
    digest = hashlib.blake2b(digest_size=_DIGEST_SIZE)
    with atomic_write(path) as file:

        def put(block: Any) -> None:
            digest.update(block)
            file.write(block)

        put(_HEAD.pack(MAGIC, VERSION, len(header)))
        put(header)
        for array in contiguous.values():
            put(array.reshape(-1).view(np.uint8).data)
            put(b"\0" * (-array.nbytes % _ALIGN))
        file.write(digest.digest())


def read_container(
    path: str | os.PathLike[str], kind: str, mmap: bool = False
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read a container back as ``(meta, arrays)``; the arrays are writable and share one buffer.

    With ``mmap`` they are read-only, and the file itself, mapped into memory. Raises CorruptFileError where the file
    is not a container of ``kind``, or any byte of it has changed.
    """
    path = as_path(path)
    try:
        # An empty file cannot be mapped, nor need it be.
        mapped = mmap and os.path.getsize(path) > 0
        buffer = np.asarray(np.memmap(path, np.uint8, "r")) if mapped else np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise FastHashError(f"{path}: cannot read: {error.strerror or error}") from error
    if buffer.size < _HEAD.size + _DIGEST_SIZE or buffer[:8].tobytes() != MAGIC:
        raise CorruptFileError(f"{path}: not a fasthash file, or cut short")
    _, version, header_size = _HEAD.unpack(buffer[: _HEAD.size].tobytes())
    body = buffer[:-_DIGEST_SIZE]
    digest = hashlib.blake2b(body.data, digest_size=_DIGEST_SIZE).digest()
    if digest != buffer[-_DIGEST_SIZE:].tobytes():
        raise CorruptFileError(f"{path}: checksum does not match: the file is damaged or cut short")
    if version != VERSION:
        raise CorruptFileError(f"{path}: format version {version}; this fasthash reads version {VERSION}")
    header = json.loads(body[_HEAD.size : _HEAD.size + header_size].tobytes())
    if header["kind"] != kind:
        raise CorruptFileError(f"{path}: holds a {header['kind']}, not a {kind}")
    arrays = {}
    offset = _HEAD.size + header_size
    for entry in header["arrays"]:
        dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
        nbytes = dtype.itemsize * math.prod(shape)
        arrays[entry["name"]] = body[offset : offset + nbytes].view(dtype).reshape(shape)
        offset += nbytes + (-nbytes % _ALIGN)
    return header["meta"], arrays
