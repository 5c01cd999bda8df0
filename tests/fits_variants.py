"""FITS images of every kind that fasthash decodes itself, drawn at random and written by astropy."""

import io
from unittest.mock import patch

import numpy as np
from astropy.io import fits
from bad_files import BLOCK, card, plain

TYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
SCALES = ("1", "2", "0.1", "-0.5", "1E-3", "3.7D0")
ZEROS = ("0", "10", "-128", "32768", "2147483648", "0.25", "-1.5E3")
FAMILIES = ("plain", "rice", "quantised")


def variant(rng, family):
    """The bytes of a file, and the number of its HDU that holds the image."""
    return {"plain": _plain, "rice": _rice, "quantised": _quantised}[family](rng)


def with_cards(data, **cards):
    """A file of an empty primary HDU and one extension, with cards added to the header of that."""
    end = data.index(b"END".ljust(80), BLOCK)
    body = end + 80 + (-end - 80) % BLOCK
    header = data[BLOCK:end] + b"".join(card(key, value) for key, value in cards.items()) + b"END".ljust(80)
    return data[:BLOCK] + header.ljust(len(header) + -len(header) % BLOCK) + data[body:]


def _plain(rng):
    bitpix = int(rng.choice(list(TYPES)))
    shape = _shape(rng)
    values = _integers(rng, shape, min(abs(bitpix), 64)) if bitpix > 0 else _floats(rng, shape)
    cards = {"BSCALE": rng.choice(SCALES), "BZERO": rng.choice(ZEROS)} if rng.random() < 0.6 else {}
    if bitpix > 0 and rng.random() < 0.5:
        cards["BLANK"] = int(values.flat[0])
    return plain(bitpix, shape, values.astype(TYPES[bitpix]).tobytes(), **cards), 0


def _rice(rng):
    dtype = np.dtype(rng.choice(["u1", "i2", "i4", "i1", "u2", "u4"]))
    shape = _shape(rng)
    values = _integers(rng, shape, 8 * dtype.itemsize).astype(dtype)
    with patch("astropy.io.fits.hdu.compressed.header.DEFAULT_BLOCK_SIZE", int(rng.choice([16, 32]))):
        data = _written(fits.CompImageHDU(values, compression_type="RICE_1", tile_shape=_tile(rng, shape)))
    cards = {}
    if dtype.str[1:] in ("u1", "i2", "i4"):  # the others have a BZERO already
        if rng.random() < 0.7:
            cards |= {"BSCALE": rng.choice(SCALES), "BZERO": rng.choice(ZEROS)}
        if rng.random() < 0.5:
            cards[str(rng.choice(["BLANK", "ZBLANK"]))] = int(values.flat[0])
    return with_cards(data, **cards), 1


def _quantised(rng):
    shape = _shape(rng)
    values = _floats(rng, shape).astype(rng.choice(["f4", "f8"]))
    if rng.random() < 0.2:
        values[0] = 1.5  # tiles without noise are compressed by other means
    hdu = fits.CompImageHDU(
        values,
        compression_type="RICE_1",
        tile_shape=_tile(rng, shape),
        quantize_method=int(rng.choice([-1, 1, 2])),
        quantize_level=float(rng.choice([16, 4, -0.5])),
        dither_seed=int(rng.integers(1, 10_001)),
    )
    return _written(hdu), 1


def _shape(rng):
    height, width = (int(side) for side in rng.integers(1, 90, 2))
    return [(height, width), (height, width), (1, height, width), (height, 1, width), (height, width, 1)][
        rng.integers(5)
    ]


def _tile(rng, shape):
    return None if rng.random() < 0.4 else tuple(int(rng.integers(1, side + 1)) for side in shape)


def _integers(rng, shape, bits):
    """Fields of any roughness: constant, smooth, noisy, with single spikes, and all of the type's range."""
    size = int(np.prod(shape))
    kind = rng.integers(5)
    spread = 2.0 ** rng.uniform(0, bits - 2)
    if kind == 0:
        values = np.full(size, rng.integers(-100, 100))
    elif kind == 1:
        values = np.cumsum(rng.normal(0, 3, size))
    elif kind == 2:
        values = rng.normal(0, spread / 4, size)
    elif kind == 3:
        values = np.where(rng.random(size) < 0.02, spread, 0) + rng.integers(0, 2, size)
    else:
        values = rng.uniform(-(2.0 ** (bits - 1)), 2.0 ** (bits - 1), size)
    # As the float next to 2^(bits - 1) is beyond the type, not quite to its ends.
    limit = 2.0 ** (bits - 1) * (1 - 2**-30)
    return np.clip(values, -limit, limit).astype(np.int64).reshape(shape)


def _floats(rng, shape):
    values = rng.normal(rng.uniform(-100, 100), 10 ** rng.uniform(-2, 3), shape)
    values[rng.random(shape) < 0.05] = 0
    if rng.random() < 0.5:
        values[rng.random(shape) < 0.1] = np.nan
    return values


def _written(hdu):
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(file)
    return file.getvalue()
