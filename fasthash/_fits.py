"""FITS files, looked over before anything decodes them: what a header claims, against the bytes that are there.

FITS readers trust headers. A negative axis, a tile that says it is a thousand times its size or a column count of 10^13
makes them return nonsense, run out of memory, loop, or write beyond an array. No pixel is decoded here.
"""

import math
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fasthash._source import Memory, Source, chunks
from fasthash._tiles import datasum
from fasthash.errors import ReadError

if TYPE_CHECKING:
    from fasthash.io import Limits

_BLOCK = 2880
_BLOCKS = 8 * _BLOCK  # of a header that are read at a time
# More than any instrument writes; without a bound a file without END is read to its last byte, card by card.
_HEADER_BYTES = 2**22
_BYTES = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_COMPRESSIONS = ("RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS")
_HCOMPRESS_HEAD = np.dtype([("magic", ">u2"), ("nx", ">i4"), ("ny", ">i4")])

# What a card may hold; None where it has no value.
Value = str | bool | int | float | complex | None
Cards = Mapping[str, Value]


class Malformed(str):
    """The value field of a card that does not follow the standard."""


_TEXT = re.compile(r"\s*'((?:[^']|'')*)'")
_INTEGER = re.compile(r"[+-]?\d+")
_REAL = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[EeDd][+-]?\d+)?"
_NUMBER = re.compile(rf"(?P<real>{_REAL})|\(\s*(?P<re>{_REAL})\s*,\s*(?P<im>{_REAL})\s*\)")
# Cards of a compressed image that are about its table and its compression.
_OF_TABLE = re.compile(
    r"XTENSION|[PG]COUNT|CHECKSUM|DATASUM|TFIELDS|THEAP|T(TYPE|FORM|UNIT|NULL|SCAL|ZERO|DISP|DIM)\d+|BITPIX|NAXIS\d*"
    r"|Z(IMAGE|SIMPLE|TENSION|EXTEND|BLOCKED|[PG]COUNT|HECKSUM|DATASUM|CMPTYPE|MASKCMP|QUANTIZ|DITHER0|BLANK|SCALE|ZERO)"
    r"|Z(BITPIX|NAXIS\d*|(TILE|NAME|VAL)\d+)"
)


@dataclass(frozen=True)
class Tiles:
    """Where the tiles of a compressed image are: their shape, slowest axis first, and the table that tells of each."""

    method: str
    shape: tuple[int, ...]
    table: NDArray[np.uint8]
    columns: Mapping[str, tuple[int, str]]
    heap: memoryview

    def streams(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where in the heap the stream of each tile starts and ends, of a column of such streams."""
        offset, form = self.columns[name]
        if form[0] not in "PQ" or form[1:] not in _BYTES:
            raise ReadError(f"column {name} of a compressed image has form {form}")
        counts, starts = self._numbers(offset, np.dtype(">i4" if form[0] == "P" else ">i8"), 2).astype(np.int64).T
        size = len(self.heap)
        item = _BYTES[form[1:]]
        if ((counts < 0) | (starts < 0) | (counts > size // item) | (starts > size - item * counts)).any():
            raise ReadError(f"compression tiles lie outside the {size} bytes of their heap: cut short or damaged")
        return starts.copy(), starts + item * counts

    def doubles(self, name: str) -> NDArray[np.float64] | None:
        """A column of float64 numbers; None where there is no such column."""
        offset, form = self.columns.get(name, (0, ""))
        return self._numbers(offset, np.dtype(">f8"), 1)[:, 0].astype(np.float64) if form == "D" else None

    def _numbers(self, offset: int, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        return np.ascontiguousarray(self.table[:, offset : offset + count * dtype.itemsize]).view(dtype)


@dataclass(frozen=True)
class Found:
    """An image in a FITS file.

    index : of its HDU.
    axes : their lengths, slowest first; shape: (H, W), without those of length one.
    cards : of its HDU as they stand in the file; header: those of the image, and of the primary HDU.
    content, body : the bytes of its HDU's data, from ``body`` on.
    tiles : of a compressed image.
    remarks : what a user should know of it.
    """

    index: int
    axes: tuple[int, ...]
    shape: tuple[int, int]
    cards: Cards
    header: Cards
    content: Source
    body: int
    tiles: Tiles | None
    remarks: tuple[str, ...]


def find_image(source: Source, limits: "Limits") -> Found:
    """The first two-dimensional image, once its bytes are known to be there, few enough and consistent.

    Raises
    ------
    ReadError
        Where there is none, or where the HDUs up to it are damaged or over the limits.
    """
    others = ""
    start, index = 0, 0
    primary: Cards = {}
    while start < len(source) and (start == 0 or source.read(start, start + 8) == b"XTENSION"):
        cards, body = _cards(source, start)
        if index == 0:
            primary = cards
            if cards.get("SIMPLE") is not True:
                raise ReadError("FITS card SIMPLE is not T: not standard FITS")
        size = _data_bytes(cards)
        shape = _image_shape(cards)
        if shape:
            if _is_plane(shape):
                compressed = _is_compressed(cards)
                plane = limits.image_shape(shape)
                end = body + size
                if end > len(source):
                    raise ReadError(f"cut short: HDU {index} ends at byte {end}, the file at {len(source)}")
                content = source
                if compressed:  # its tiles are asked for in no certain order
                    content, body, end = Memory(source.read(body, end)), 0, size
                tiles = _checked_tiles(cards, shape, content.read(0, size), limits) if compressed else None
                # An empty primary HDU often holds what is common to all, such as the time.
                header = _with_values(primary) | _with_values(_image_cards(cards) if compressed else cards)
                remarks = _check_datasum(cards, content, body, end)
                return Found(index, shape, plane, cards, header, content, body, tiles, remarks)
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
        cards, body = _cards(Memory(head), start)
        end = body + _data_bytes(cards)
        if _is_plane(_image_shape(cards)):
            return end
        start = end + (-end % _BLOCK)


def _is_compressed(cards: Cards) -> bool:
    return cards.get("ZIMAGE") is True


def _image_shape(cards: Cards) -> tuple[int, ...]:
    """The shape of an HDU's image; () where it holds none."""
    if _is_compressed(cards):
        return _shape(cards, "Z")
    return _shape(cards, "") if cards.get("XTENSION", "IMAGE") == "IMAGE" else ()


def _is_plane(shape: tuple[int, ...]) -> bool:
    return len(shape) >= 2 and sum(length != 1 for length in shape) <= 2


def _cards(source: Source, start: int) -> tuple[dict[str, Value], int]:
    """The cards of the header at ``start``, the first of each name, and where its data begin.

    Commentary is left out; strings are put together from their CONTINUE cards.
    """
    cards: dict[str, Value] = {}
    key = ""
    for offset, card in _card_texts(source, start):
        name, value = card[:8], card[10:]
        if name == "END     ":
            body = offset + 80
            return cards, body + (start - body) % _BLOCK
        if name == "CONTINUE":
            before, text = cards.get(key), _TEXT.match(value)
            if isinstance(before, str) and before.endswith("&") and text:
                cards[key] = (before[:-1] + _unquoted(text)).rstrip()
            continue
        if name == "HIERARCH":
            name, _, value = card[9:].partition("=")
        elif card[8:10] != "= ":
            continue
        key = name.strip().upper()
        if key in cards:
            key = ""
        else:
            cards[key] = _value(value)
    raise ReadError("FITS header without END: cut short or damaged")


def _card_texts(source: Source, start: int) -> Iterator[tuple[int, str]]:
    """The cards of a header and of what follows it, and where they are."""
    for at in range(start, min(len(source), start + _HEADER_BYTES), _BLOCKS):
        text = bytes(source.read(at, at + _BLOCKS)).decode("latin-1")
        for first in range(0, len(text) - 79, 80):
            yield at + first, text[first : first + 80]


def _value(field: str) -> Value:
    """What the value field of a card holds (FITS standard 4.0, section 4.2)."""
    if text := _TEXT.match(field):
        return _unquoted(text)
    token = field.partition("/")[0].strip()
    if not token:
        return None
    if token in ("T", "F"):
        return token == "T"
    if _INTEGER.fullmatch(token):
        return int(token)
    number = _NUMBER.fullmatch(token)
    if number is None:
        return Malformed(token)
    real, *parts = (float(part.upper().replace("D", "E")) if part else 0.0 for part in number.groups())
    return real if number["real"] else complex(*parts)


def _unquoted(text: re.Match[str]) -> str:
    return text[1].replace("''", "'").rstrip()


def _with_values(cards: Cards) -> dict[str, Value]:
    """Without cards that have none: ``CROTA2 = nan`` is not fatal."""
    return {key: value for key, value in cards.items() if not (value is None or isinstance(value, Malformed))}


def _image_cards(cards: Cards) -> dict[str, Value]:
    """The cards of a compressed image as they were before it was compressed."""
    own = {key: value for key, value in cards.items() if not _OF_TABLE.fullmatch(key)}
    return own | {key[1:]: value for key, value in cards.items() if re.fullmatch(r"ZBITPIX|ZNAXIS\d*", key)}


def _integer(cards: Cards, key: str, default: int | None = None, low: int = -(2**63), high: int = 2**63) -> int:
    if key not in cards and default is not None:
        return default
    value = cards.get(key)
    if value is None:
        raise ReadError(f"FITS card {key} is missing")
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ReadError(f"FITS card {key} is {str(value)[:40]}")
    return value


def _text(cards: Cards, key: str) -> str:
    value = cards.get(key, "")
    return value if isinstance(value, str) else ""


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


def _check_datasum(cards: Cards, content: Source, start: int, stop: int) -> tuple[str, ...]:
    """Compare DATASUM (FITS standard 4.0, appendix J) with the data; headers copied to other data make it a remark."""
    wanted = _text(cards, "DATASUM")
    if not wanted.isdecimal():
        return ()
    total = 0
    for chunk in chunks(content, start, stop):
        whole = len(chunk) // 4 * 4
        total += datasum(chunk[:whole]) + int.from_bytes(bytes(chunk[whole:]).ljust(4, b"\0"), "big")
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return () if total == int(wanted) else ("DATASUM does not match the data: altered or damaged",)


# ---- tile compression (FITS standard 4.0, section 10) --------------------------------------------------------------


def compression_setting(cards: Cards, name: str, default: Value) -> Value:
    """The value ZVALi of the compression's setting whose name is ZNAMEi."""
    for number in range(1, 1000):
        if f"ZNAME{number}" not in cards:
            break
        if _text(cards, f"ZNAME{number}").upper() == name:
            return cards.get(f"ZVAL{number}")
    return default


def _checked_tiles(cards: Cards, shape: tuple[int, ...], content: memoryview, limits: "Limits") -> Tiles:
    """Refuse tiles that lie outside the heap, or whose streams claim more pixels than their tile has."""
    method = _text(cards, "ZCMPTYPE")
    if method not in _COMPRESSIONS:
        raise ReadError(f"compression {method or 'without ZCMPTYPE'} is not supported")
    for name, most in (("BLOCKSIZE", 2**12), ("BYTEPIX", 8)):  # the latter is a factor of what astropy allocates
        value = compression_setting(cards, name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise ReadError(f"compression setting {name} is {str(value)[:40]}, expected 1 to {most}")
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
    tiles = Tiles(method, tile, table, _columns(cards, width), heap)
    if "COMPRESSED_DATA" not in tiles.columns:
        raise ReadError("compressed image without a column COMPRESSED_DATA")
    pixels = _tile_pixels(shape, tile, counts)
    methods = {"COMPRESSED_DATA": method, "GZIP_COMPRESSED_DATA": "GZIP_1", "UNCOMPRESSED_DATA": ""}
    for name in methods.keys() & tiles.columns.keys():
        starts, ends = tiles.streams(name)
        is_sound = _SOUND.get(methods[name])
        if is_sound is None:
            continue
        for row in np.flatnonzero(ends > starts):
            if not is_sound(heap[starts[row] : ends[row]], int(pixels[row])):
                raise ReadError(f"compression tile {row} is damaged")
    return tiles


def _columns(cards: Cards, width: int) -> dict[str, tuple[int, str]]:
    """Where each column lies in a row of the table, and its form."""
    columns, offset = {}, 0
    for number in range(1, _integer(cards, "TFIELDS") + 1):
        form = re.match(r"(\d{0,9})([A-Z])([A-Z]?)", _text(cards, f"TFORM{number}"))
        if form is None or form[2] not in _BYTES:
            raise ReadError(f"FITS card TFORM{number} is {str(cards.get(f'TFORM{number}', 'missing'))[:40]}")
        columns[_text(cards, f"TTYPE{number}").upper()] = (offset, form[2] + form[3])
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


def _sound_gzip(stream: memoryview, pixels: int) -> bool:
    """Whether no more comes out of a stream than its tile may have."""
    inflate = zlib.decompressobj(wbits=31)
    try:
        out = inflate.decompress(stream, 8 * pixels + 1)
    except zlib.error:
        return False
    return inflate.eof and len(out) <= 8 * pixels and not inflate.unused_data.strip(b"\0")


def _sound_hcompress(stream: memoryview, pixels: int) -> bool:
    """Whether a stream says that it has as many pixels as its tile."""
    if len(stream) < _HCOMPRESS_HEAD.itemsize:
        return False
    head = np.frombuffer(stream, _HCOMPRESS_HEAD, 1)[0]
    nx, ny = int(head["nx"]), int(head["ny"])
    return bool(head["magic"] == 0xDD99 and min(nx, ny) >= 1 and nx * ny == pixels)


# Streams that have to be looked at before they are given to their decoders, which would not look.
_SOUND = {"GZIP_1": _sound_gzip, "GZIP_2": _sound_gzip, "HCOMPRESS_1": _sound_hcompress}
