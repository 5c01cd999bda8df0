"""FITS images a few rows at a time: plain ones, and tiles compressed by Rice's method. No file is opened here.

Every pixel takes the steps it takes in astropy, in the same arithmetic, and then becomes float32: the same bits. What
this module does not understand is left to astropy; nothing is guessed.
"""

import contextlib
import functools
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeGuard, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fasthash import _fits, _tiles
from fasthash._parallel import fold_jobs
from fasthash.errors import ReadError
from fasthash.hamming import best_levels, simd_level

R = TypeVar("R")

# Rows of a band: what a thread takes at a time, and of a large image what stays in its second-level cache.
BAND = 64

_LEVELS = best_levels(_tiles.available_levels())
_NUMBER = (int, float)
_UNSIGNED = {(8, -128), (16, 2**15), (32, 2**31), (64, 2**63)}  # BITPIX and BZERO of integers of the other sign


@runtime_checkable
class Bands(Protocol):
    """An image that gives its rows when asked: shape (H, W); tile_rows, of which it decodes a multiple."""

    shape: tuple[int, int]
    tile_rows: int

    def read(self, first: int, last: int, out: NDArray[np.float32]) -> None:
        """Fill ``out`` with rows [first, last), both multiples of tile_rows, or last is H. May raise ReadError."""


def open_bands(found: _fits.Found) -> Bands | None:
    """The image's rows; None where only astropy knows how to read them."""
    return _plain(found) if found.tiles is None else _rice(found, found.tiles)


class _Buffers:
    """Arrays to be used again: fresh memory costs more than what is written into it."""

    def __init__(self, shape: int | tuple[int, int], dtype: Any) -> None:
        self._make = functools.partial(np.empty, shape, dtype)
        self._spare: list[NDArray[Any]] = []

    @contextlib.contextmanager
    def one(self) -> Iterator[NDArray[Any]]:
        """One that no other thread has meanwhile."""
        try:
            buffer = self._spare.pop()
        except IndexError:
            buffer = self._make()
        yield buffer
        self._spare.append(buffer)


# ---- plain images --------------------------------------------------------------------------------------------------


class _Plain:
    """Big-endian pixels of ``source`` from ``body`` on, times ``scale`` plus ``zero``; NaN where they are ``blank``."""

    tile_rows = 1

    def __init__(self, found: _fits.Found, dtype: Any, real: Any, scale: float, zero: float, blank: int | None) -> None:
        self.shape = found.shape
        self._source, self._body, self._dtype = found.content, found.body, np.dtype(dtype)
        self._real, self._scale, self._zero, self._blank = real, scale, zero, blank
        self._row_bytes = found.shape[1] * self._dtype.itemsize
        self._buffers = _Buffers(BAND * self._row_bytes, np.uint8)

    def read(self, first: int, last: int, out: NDArray[np.float32]) -> None:
        start, stop = (self._body + row * self._row_bytes for row in (first, last))
        with self._buffers.one() as buffer, np.errstate(all="ignore"):  # what becomes infinite is refused later
            raw = np.frombuffer(self._source.read(start, stop, buffer), self._dtype).reshape(out.shape)
            if (self._scale, self._zero, self._blank) == (1, 0, None):
                out[...] = raw
                return
            for row, values in zip(raw, out, strict=True):  # a row at a time stays in the cache
                values[...] = self._scaled(row)

    def _scaled(self, raw: NDArray[Any]) -> NDArray[Any]:
        values = raw.astype(self._real)
        if self._scale != 1:
            values *= self._scale
        if self._zero != 0:
            values += self._zero
        if self._blank is not None:
            values[raw == self._blank] = np.nan
        return values


def _plain(found: _fits.Found) -> Bands | None:
    bitpix = _bitpix(found.cards, "BITPIX")
    scaling = _scaling(found.cards, bitpix, found.cards.get("BLANK"))
    if scaling is None:
        return None
    dtype = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}[bitpix]
    return _Plain(found, dtype, _real(bitpix), *scaling)


def _bitpix(cards: _fits.Cards, key: str) -> int:
    return int(cards[key])  # type: ignore[arg-type]  # find_image has seen to it


def _real(bitpix: int) -> type[np.floating[Any]]:
    """The type in which astropy scales pixels."""
    return np.float32 if bitpix in (8, 16, -32) else np.float64


def _scaling(cards: _fits.Cards, bitpix: int, blank: _fits.Value) -> tuple[float, float, int | None] | None:
    """BSCALE, BZERO and the integer that stands for no value; None where astropy has rules of its own."""
    scale, zero = cards.get("BSCALE", 1), cards.get("BZERO", 0)
    if not (isinstance(scale, _NUMBER) and isinstance(zero, _NUMBER) and _is_blank(blank)):
        return None
    unsigned = scale == 1 and (bitpix, zero) in _UNSIGNED
    if unsigned and (bitpix == 64 or (bitpix == 8 and blank is not None)):
        return None
    return float(scale), float(zero), None if bitpix < 0 or unsigned else blank


def _is_blank(value: _fits.Value) -> TypeGuard[int | None]:
    """Whether it is a BLANK that can stand in a header; a BLANK of 0 is a case of its own in astropy."""
    return value is None or (type(value) is int and value != 0)


# ---- tiles ---------------------------------------------------------------------------------------------------------


# The streams of the tiles that were compressed by gzip, by the tile's number.
_Gzipped = Mapping[int, memoryview]


class _Rice:
    """Tiles compressed by Rice's method; those of floats without noise, which it could not shrink, by gzip."""

    def __init__(self, found: _fits.Found, tile: tuple[int, int], plane: _tiles.RicePlane, gzipped: _Gzipped) -> None:
        self.shape = found.shape
        self.tile_rows, self._tile_cols = tile
        self._plane, self._gzipped = plane, gzipped
        self._level = _LEVELS[simd_level()]

    def read(self, first: int, last: int, out: NDArray[np.float32]) -> None:
        rows = range(first // self.tile_rows, -(-last // self.tile_rows))
        integers = np.empty(self.tile_rows * self._tile_cols, np.int32)
        damaged = self._plane.decode(self._level, rows.start, rows.stop, integers, out)
        if damaged >= 0:
            raise ReadError(f"compression tile {damaged} is damaged")
        across = -(-self.shape[1] // self._tile_cols)
        for tile in self._gzipped.keys() & range(rows.start * across, rows.stop * across):
            top, left = tile // across * self.tile_rows - first, tile % across * self._tile_cols
            _gunzip(tile, self._gzipped[tile], out[top : top + self.tile_rows, left : left + self._tile_cols])


def _gunzip(tile: int, stream: memoryview, out: NDArray[np.float32]) -> None:
    data = zlib.decompress(stream, wbits=31)  # find_image has seen how much will come out
    dtype = {4 * out.size: ">f4", 8 * out.size: ">f8"}.get(len(data))
    if dtype is None:
        raise ReadError(f"compression tile {tile} is damaged")
    with np.errstate(over="ignore"):
        out[...] = np.frombuffer(data, dtype).reshape(out.shape)


def _rice(found: _fits.Found, tiles: _fits.Tiles) -> Bands | None:
    cards = found.cards
    bytepix = _fits.compression_setting(cards, "BYTEPIX", 4)
    blocksize = _fits.compression_setting(cards, "BLOCKSIZE", 32)
    if (
        tiles.method not in ("RICE_1", "RICE_ONE")
        or tiles.columns["COMPRESSED_DATA"][1][1] != "B"
        or not (isinstance(bytepix, int) and bytepix in (1, 2, 4))
        or not isinstance(blocksize, int)
        or "ZBLANK" in tiles.columns
        or cards.get("XTENSION") != "BINTABLE"
    ):
        return None
    starts, ends = tiles.streams("COMPRESSED_DATA")
    is_float = _bitpix(cards, "ZBITPIX") < 0
    pixel = _quantised(cards, tiles) if is_float else _integers(cards, bytepix, len(starts))
    gzipped = _gzipped(tiles, np.flatnonzero(starts == ends), is_float)
    if pixel is None or gzipped is None:
        return None
    tile = _without_axes_of_one(found.axes, tiles.shape)
    heap = np.frombuffer(tiles.heap, np.uint8)
    plane = _tiles.RicePlane(found.shape, tile, heap, starts, ends - starts, bytepix, blocksize, *pixel)
    return _Rice(found, tile, plane, gzipped)


def _gzipped(tiles: _fits.Tiles, numbers: NDArray[np.intp], is_float: bool) -> _Gzipped | None:
    """The streams of the tiles of these numbers; None where they are not all there."""
    if not len(numbers):
        return {}
    if not is_float or tiles.columns.get("GZIP_COMPRESSED_DATA", (0, ""))[1] not in ("PB", "QB"):
        return None
    starts, ends = tiles.streams("GZIP_COMPRESSED_DATA")
    if (starts == ends)[numbers].any():
        return None
    return {int(number): tiles.heap[starts[number] : ends[number]] for number in numbers}


# What RicePlane has to know of integers: scales, zeros, single, blank, dither, random, seed.
_Pixel = tuple[NDArray[np.float64], NDArray[np.float64], bool, int | None, int, NDArray[np.float32], int]


def _integers(cards: _fits.Cards, bytepix: int, n_tiles: int) -> _Pixel | None:
    bitpix = _bitpix(cards, "ZBITPIX")
    scaling = _scaling(cards, bitpix, cards.get("BLANK", cards.get("ZBLANK")))
    if scaling is None or bitpix != 8 * bytepix or scaling[0] == 0:
        return None
    scale, zero, blank = scaling
    real = _real(bitpix)
    with np.errstate(over="ignore"):
        # A sum with -0.0 changes nothing, one with 0.0 would change -0.0.
        scales, zeros = (np.full(n_tiles, real(value), np.float64) for value in (scale, zero or -0.0))
    return scales, zeros, real is np.float32, _int32(blank), _tiles.DITHERS["NO_DITHER"], _random(), 0


def _quantised(cards: _fits.Cards, tiles: _fits.Tiles) -> _Pixel | None:
    """Floats that were quantised tile by tile (FITS standard 4.0, section 10.2)."""
    scales, zeros = tiles.doubles("ZSCALE"), tiles.doubles("ZZERO")
    dither = _tiles.DITHERS.get(cards.get("ZQUANTIZ", "NO_DITHER"))
    seed = cards.get("ZDITHER0", None if dither else 1)  # astropy has a seed of its own for a dither without one
    blank = cards.get("ZBLANK", cards.get("BLANK"))
    if scales is None or zeros is None or dither is None or not _is_blank(blank):
        return None
    if not (isinstance(seed, int) and 1 <= seed <= _tiles.RANDOM):
        return None
    if cards.get("BSCALE", 1) != 1 or cards.get("BZERO", 0) != 0:
        return None
    return scales, zeros, False, _int32(blank), dither, _random(), seed - 1


def _int32(blank: int | None) -> int | None:
    """None too for a number that no pixel can have."""
    return blank if blank is not None and -(2**31) <= blank < 2**31 else None


@functools.cache
def _random() -> NDArray[np.float32]:
    """The table of dithers (FITS standard 4.0, appendix I)."""
    seed, numbers = 1, []
    for _ in range(_tiles.RANDOM):
        seed = 16807 * seed % (2**31 - 1)
        numbers.append(seed / (2**31 - 1))
    return np.array(numbers, np.float32)


def _without_axes_of_one(axes: tuple[int, ...], tile: tuple[int, ...]) -> tuple[int, int]:
    """The shape of a tile in the plane that is left of an image when axes of length one are dropped."""
    sides = [(length, min(length, step)) for length, step in zip(axes, tile, strict=True)]
    while len(sides) > 2:
        sides.remove((1, 1))
    (_, rows), (_, cols) = sides
    return rows, cols


# ---- all rows ------------------------------------------------------------------------------------------------------


def decode(bands: Bands, num_threads: int = 1) -> NDArray[np.float32]:
    """All pixels, float32 (H, W). Raises ReadError where a tile is damaged, or as `PixelCheck` does."""
    pixels = np.empty(bands.shape, np.float32)
    step = bands.tile_rows * max(1, BAND // bands.tile_rows)
    check = PixelCheck()

    def read(first: int) -> tuple[int, int]:
        rows = pixels[first : first + step]
        bands.read(first, first + len(rows), rows)
        return count(rows)

    fold_jobs(read, range(0, len(pixels), step), check.add, num_threads)
    check.finish()
    return pixels


def fold_bands(
    image: NDArray[np.float32] | Bands,
    work: Callable[[NDArray[np.float32], int], R],
    add: Callable[[R], object],
    num_threads: int,
) -> None:
    """``add(work(rows, first))`` for each band of ``BAND`` rows, where ``first`` is the number of its first row.

    The work is done on so many threads, results are added in the order of the bands, one at a time. So what comes out
    is the same for any number of threads, and for an array and the file it came from. Raises as `decode` does.
    """
    if not isinstance(image, np.ndarray) and BAND % image.tile_rows:
        image = decode(image, num_threads)
    height, width = image.shape
    check = PixelCheck()
    buffers = _Buffers((BAND, width), np.float32)

    def one_band(first: int) -> tuple[R, tuple[int, int]]:
        if isinstance(image, np.ndarray):
            return work(image[first : first + BAND], first), (1, 0)  # arrays are checked when they come in
        with buffers.one() as buffer:
            rows = buffer[: height - first]
            image.read(first, first + len(rows), rows)
            return work(rows, first), count(rows)

    def add_band(result: tuple[R, tuple[int, int]]) -> None:
        add(result[0])
        check.add(result[1])

    fold_jobs(one_band, range(0, height, BAND), add_band, num_threads)
    check.finish()


def count(pixels: NDArray[np.float32]) -> tuple[int, int]:
    """How many pixels of an array (H, W), C-contiguous, are finite, and how many infinite; the others are NaN."""
    return _tiles.count(_LEVELS[simd_level()], pixels) if pixels.size else (0, 0)


class PixelCheck:
    """Refuses an image once all its pixels are counted: one with infinite pixels, and one without any."""

    def __init__(self) -> None:
        self._finite, self._infinite = 0, 0

    def add(self, counts: tuple[int, int]) -> None:
        """Take in what `count` gave for some pixels."""
        self._finite += counts[0]
        self._infinite += counts[1]

    def finish(self) -> None:
        """Raise ReadError where the image cannot be used."""
        if self._infinite:
            raise ReadError(
                f"{self._infinite} pixels are infinite or beyond float32 (missing ones should be NaN or BLANK)"
            )
        if not self._finite:
            raise ReadError("no valid pixel in it")
