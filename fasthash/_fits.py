"""FITS files, looked over before anything decodes them: what a header claims, against the bytes that are there.

FITS readers trust headers. A negative axis, a tile that says it is a thousand times its size or a column count of 10^13
makes them return nonsense, run out of memory, loop, or write beyond an array. No pixel is decoded here.
"""

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fasthash.errors import ReadError

if TYPE_CHECKING:
    from fasthash.io import Limits

_BLOCK = 2880
# More than any instrument writes; without a bound a file without END is read to its last byte, card by card.
_HEADER_BYTES = 2**22
_BYTES = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_COMPRESSIONS = ("RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS")
_HCOMPRESS_HEAD = np.dtype([("magic", ">u2"), ("nx", ">i4"), ("ny", ">i4")])

Cards = Mapping[str, str]


@dataclass(frozen=True)
class Found:
    """Which HDU holds the image, its shape (H, W), and what a user should know of it."""

    index: int
    shape: tuple[int, int]
    remarks: tuple[str, ...]


def find_image(data: bytes, limits: "Limits") -> Found:
    """The first two-dimensional image, once its bytes are known to be there, few enough and consistent.

    Raises
    ------
    ReadError
        Where there is none, or where the HDUs up to it are damaged or over the limits.
    """
    others = ""
    start, index = 0, 0
    while start < len(data) and (start == 0 or data[start : start + 8] == b"XTENSION"):
        cards, body = _cards(data, start)
        if index == 0 and cards.get("SIMPLE") != "T":
            raise ReadError(f"FITS card SIMPLE is {cards.get('SIMPLE')}, not T: not standard FITS")
        size = _data_bytes(cards)
        compressed = cards.get("ZIMAGE") == "T"
        shape = _shape(cards, "Z" if compressed else "")
        if shape and (compressed or cards.get("XTENSION", "IMAGE") == "IMAGE"):
            if _is_plane(shape):
                plane = limits.image_shape(shape)
                if body + size > len(data):
                    raise ReadError(f"cut short: HDU {index} ends at byte {body + size}, the file at {len(data)}")
                content = memoryview(data)[body : body + size]
                if compressed:
                    _check_tiles(cards, shape, content, limits)
                return Found(index, plane, _check_datasum(cards, content))
            others += f"; HDU {index} has shape {shape}"
        start = body + size + (-size % _BLOCK)
        index += 1
    raise ReadError(f"no two-dimensional image in this FITS file{others[:200]}")


def image_end(head: bytes) -> int:
    """The byte at which the first two-dimensional image ends, told by the headers in ``head``, a file's beginning.

    Raises ReadError where there is no such header.
    """
    start = 0
    while True:
        cards, body = _cards(head, start)
        end = body + _data_bytes(cards)
        if _is_plane(_shape(cards, "Z" if cards.get("ZIMAGE") == "T" else "")):
            return end
        start = end + (-end % _BLOCK)


def _is_plane(shape: tuple[int, ...]) -> bool:
    return len(shape) >= 2 and sum(length != 1 for length in shape) <= 2


def _cards(data: bytes, start: int) -> tuple[dict[str, str], int]:
    """The value cards of the header at ``start`` as text, and where its data begin."""
    cards: dict[str, str] = {}
    for offset in range(start, min(len(data) - 79, start + _HEADER_BYTES), 80):
        card = data[offset : offset + 80]
        if card[:8] == b"END     ":
            body = offset + 80
            return cards, body + (start - body) % _BLOCK
        if card[8:10] == b"= ":
            value = card[10:].decode("latin-1")
            text = re.match(r"\s*'([^']*)'", value)
            cards.setdefault(card[:8].decode("latin-1").strip(), (text[1] if text else value.partition("/")[0]).strip())
    raise ReadError("FITS header without END: cut short or damaged")


def _integer(cards: Cards, key: str, default: int | None = None, low: int = -(2**63), high: int = 2**63) -> int:
    if key not in cards and default is not None:
        return default
    if not cards.get(key):
        raise ReadError(f"FITS card {key} is missing")
    if not re.fullmatch(r"[+-]?\d{1,19}", cards[key], re.ASCII) or not low <= int(cards[key]) <= high:
        raise ReadError(f"FITS card {key} is {cards[key][:40]}")
    return int(cards[key])


def _shape(cards: Cards, prefix: str) -> tuple[int, ...]:
    """The lengths of the axes, slowest first; () where the HDU has no data."""
    naxis = _integer(cards, f"{prefix}NAXIS", low=0, high=999)
    shape = tuple(_integer(cards, f"{prefix}NAXIS{axis}", low=0) for axis in range(naxis, 0, -1))
    if _integer(cards, f"{prefix}BITPIX") not in (8, 16, 32, 64, -32, -64):
        raise ReadError(f"FITS card {prefix}BITPIX is {cards[f'{prefix}BITPIX']}")
    return () if 0 in shape else shape


def _data_bytes(cards: Cards) -> int:
    shape = _shape(cards, "")
    _integer(cards, "TFIELDS", 0, low=0, high=999)
    extra, groups = _integer(cards, "PCOUNT", 0, low=0), _integer(cards, "GCOUNT", 1, low=1)
    return abs(_integer(cards, "BITPIX")) // 8 * groups * (extra + (math.prod(shape) if shape else 0))


def _check_datasum(cards: Cards, content: memoryview) -> tuple[str, ...]:
    """Compare DATASUM (FITS standard 4.0, appendix J) with the data; headers copied to other data make it a remark."""
    wanted = cards.get("DATASUM", "")
    if not wanted.isdigit():
        return ()
    whole = len(content) // 4 * 4
    total = int(np.frombuffer(content[:whole], ">u4").sum(dtype=np.uint64))
    total += int.from_bytes(bytes(content[whole:]).ljust(4, b"\0"), "big")
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return () if total == int(wanted) else ("DATASUM does not match the data: altered or damaged",)


# ---- tile compression (FITS standard 4.0, section 10) --------------------------------------------------------------


def _check_tiles(cards: Cards, shape: tuple[int, ...], content: memoryview, limits: "Limits") -> None:
    """Refuse tiles that lie outside the heap, or whose streams claim more pixels than their tile has."""
    method = cards.get("ZCMPTYPE", "")
    if method not in _COMPRESSIONS:
        raise ReadError(f"compression {method or 'without ZCMPTYPE'} is not supported")
    for number in range(1, 10):  # BYTEPIX is a factor of what the decoder allocates
        if cards.get(f"ZNAME{number}") in ("BLOCKSIZE", "BYTEPIX"):
            _integer(cards, f"ZVAL{number}", low=1, high=8 if cards[f"ZNAME{number}"] == "BYTEPIX" else 2**12)
    axes = range(len(shape), 0, -1)
    default = {1: shape[-1]}
    tile = tuple(_integer(cards, f"ZTILE{axis}", default.get(axis, 1), low=1) for axis in axes)
    if math.prod(tile) > limits.max_pixels:
        raise ReadError(f"compression tiles of shape {tile}, over the limit of {limits.max_pixels} pixels")
    counts = [-(-length // step) for length, step in zip(shape, tile, strict=True)]
    width, rows = _integer(cards, "NAXIS1"), _integer(cards, "NAXIS2")
    if math.prod(counts) > rows:
        raise ReadError(f"{math.prod(counts)} compression tiles wanted, {rows} there")
    table = np.frombuffer(content, np.uint8, rows * width).reshape(rows, width)[: math.prod(counts)]
    heap = content[_integer(cards, "THEAP", rows * width, low=rows * width, high=len(content)) :]
    columns = _columns(cards, width)
    if "COMPRESSED_DATA" not in columns:
        raise ReadError("compressed image without a column COMPRESSED_DATA")
    pixels = _tile_pixels(shape, tile, counts)
    streams = {"COMPRESSED_DATA": method, "GZIP_COMPRESSED_DATA": "GZIP_1", "UNCOMPRESSED_DATA": ""}
    for name in streams.keys() & columns.keys():
        for row, stream in enumerate(_streams(table, *columns[name], heap, name)):
            if len(stream) and not _is_sound(streams[name], stream, int(pixels[row])):
                raise ReadError(f"compression tile {row} is damaged")


def _columns(cards: Cards, width: int) -> dict[str, tuple[int, str]]:
    """Where each column lies in a row of the table, and its form."""
    columns, offset = {}, 0
    for number in range(1, _integer(cards, "TFIELDS") + 1):
        form = re.match(r"(\d{0,9})([A-Z])([A-Z]?)", cards.get(f"TFORM{number}", ""))
        if form is None or form[2] not in _BYTES:
            raise ReadError(f"FITS card TFORM{number} is {cards.get(f'TFORM{number}', 'missing')[:40]}")
        columns[cards.get(f"TTYPE{number}", "").upper()] = (offset, form[2] + form[3])
        offset += int(form[1] or 1) * _BYTES[form[2]]
    if offset != width:
        raise ReadError(f"rows of a compressed image have {width} bytes, their columns {offset}")
    return columns


def _tile_pixels(shape: tuple[int, ...], tile: tuple[int, ...], counts: list[int]) -> NDArray[np.int64]:
    """Pixels of every tile, in the order of the table's rows: those at the edges are smaller."""
    pixels = np.ones(1, np.int64)
    for length, step, count in zip(shape, tile, counts, strict=True):
        sides = np.full(count, step, np.int64)
        sides[-1] = length - step * (count - 1)
        pixels = np.multiply.outer(pixels, sides).ravel()
    return pixels


def _streams(table: NDArray[np.uint8], offset: int, form: str, heap: memoryview, name: str) -> list[memoryview]:
    """The bytes in the heap that each row's descriptor points at."""
    if form[0] not in "PQ" or form[1:] not in _BYTES:
        raise ReadError(f"column {name} of a compressed image has form {form}")
    number = np.dtype(">i4" if form[0] == "P" else ">i8")
    raw = np.ascontiguousarray(table[:, offset : offset + 2 * number.itemsize]).view(number)
    spans = [(start, start + length * _BYTES[form[1:]]) for length, start in raw.tolist()]
    if any(not 0 <= start <= end <= len(heap) for start, end in spans):
        raise ReadError(f"compression tiles lie outside the {len(heap)} bytes of their heap: cut short or damaged")
    return [heap[start:end] for start, end in spans]


def _is_sound(method: str, stream: memoryview, pixels: int) -> bool:
    """Whether a stream of a tile can be given to its decoder, which would not look."""
    if method.startswith("GZIP"):
        inflate = zlib.decompressobj(wbits=31)
        try:
            out = inflate.decompress(stream, 8 * pixels + 1)
        except zlib.error:
            return False
        return inflate.eof and len(out) <= 8 * pixels and not inflate.unused_data.strip(b"\0")
    if method == "HCOMPRESS_1":
        if len(stream) < _HCOMPRESS_HEAD.itemsize:
            return False
        head = np.frombuffer(stream, _HCOMPRESS_HEAD, 1)[0]
        nx, ny = int(head["nx"]), int(head["ny"])
        return bool(head["magic"] == 0xDD99 and min(nx, ny) >= 1 and nx * ny == pixels)
    return True
