"""FITS images that fasthash decodes itself: every bit as astropy has it, and no damage goes further than an error.

FASTHASH_CASES sets how many cases are drawn (the default takes seconds): FASTHASH_CASES=1000 for variants of files,
100000 for damaged ones, under make sanitize with every access checked.
"""

import contextlib
import io
import os
import subprocess
import sys
import warnings

import bad_files
import fits_variants
import numpy as np
import pytest
import reference
from astropy.io import fits
from astropy.io.fits.hdu.compressed._codecs import Rice1
from hypothesis import given, settings
from hypothesis import strategies as st

from fasthash import GridHistogram, _tiles
from fasthash._bands import Bands
from fasthash.errors import FastHashError, ReadError
from fasthash.io import Image, open_image, read_image
from fasthash.solar.field_map import FieldMap
from fasthash.solar.magnetogram import MagnetogramHistogram, orient

CASES = int(os.environ.get("FASTHASH_CASES", "0"))
LEVELS = range(len(_tiles.available_levels()))
DISK = {"CRPIX1": 150.5, "CRPIX2": 140.25, "CDELT1": 1, "CDELT2": 1, "RSUN_OBS": 120, "CROTA2": 180.01}


def by_astropy(data, index):
    """Its pixels as float32; all NaN where it fails (8-bit integers with a sign and BLANK)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(io.BytesIO(data), memmap=False) as hdus, np.errstate(all="ignore"):
            try:
                return np.ascontiguousarray(hdus[index].data, np.float32)
            except ValueError:
                return np.full(hdus[index].shape, np.nan, np.float32)


def bits(pixels):
    """Pixels as integers, so that -0.0 is not 0.0; NaN is NaN, whatever bits it has."""
    return np.where(np.isnan(pixels), 0x7FC00000, pixels.view(np.int32))


# ---- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", fits_variants.FAMILIES)
def test_every_bit_is_as_astropy_has_it(family, tmp_path):
    ours = 0
    path = tmp_path / "a.fits"
    cases = CASES or 40
    for seed in range(cases):
        data, index = fits_variants.variant(np.random.default_rng(seed), family)
        path.write_bytes(data)
        expected = by_astropy(data, index)
        if np.isinf(expected).any() or not np.isfinite(expected).any():
            with pytest.raises(ReadError, match=r"a\.fits: "):
                read_image(path)
            continue
        image = open_image(path)
        np.testing.assert_array_equal(bits(image.pixels), bits(expected.reshape(image.shape)), err_msg=f"seed {seed}")
        ours += isinstance(image.source, Bands)
    assert ours > 0.8 * cases  # astropy has not read them for us


def test_a_dither_without_a_seed_is_left_to_astropy(tmp_path):
    path = tmp_path / "a.fits"
    values = np.random.default_rng(0).normal(0, 9, (40, 50)).astype("f4")
    for method in (1, 2):
        data = fits_variants._written(
            fits.CompImageHDU(values, compression_type="RICE_1", quantize_method=method, dither_seed=5)
        )
        data = data.replace(b"ZDITHER0=", b"ZDITHER9=")
        path.write_bytes(data)
        np.testing.assert_array_equal(bits(read_image(path).pixels), bits(by_astropy(data, 1)))


@pytest.mark.parametrize("tile", [(1, 300), (16, 300), (64, 300), (100, 300), (280, 300), (32, 50), (7, 77)])
@pytest.mark.parametrize("dtype", ["i2", "i4", "f4"])
def test_a_file_is_described_as_the_array_of_its_pixels(tile, dtype, tmp_path):
    field = np.random.default_rng(0).normal(0, 300, (280, 300))
    header = fits.Header(DISK)
    hdu = fits.CompImageHDU(field.astype(dtype), header, compression_type="RICE_1", tile_shape=tile)
    path = tmp_path / "sun.fits"
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    whole = read_image(path)
    for front_end in (FieldMap(16), MagnetogramHistogram(GridHistogram())):
        expected = front_end.describe(whole)
        for threads in (1, 2, 3):
            image = open_image(path)
            assert isinstance(image.source, Bands)
            np.testing.assert_array_equal(front_end.describe(image, threads), expected)
            np.testing.assert_array_equal(front_end.describe(whole, threads), expected)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "i8", "f4", "f8"])
def test_a_plain_file_is_described_as_the_array_of_its_pixels(dtype, tmp_path):
    path = tmp_path / "sun.fits"
    field = np.random.default_rng(0).normal(100, 30, (280, 300)).astype(dtype)
    fits.HDUList([fits.PrimaryHDU(field, fits.Header(DISK))]).writeto(path)
    for front_end in (FieldMap(16), MagnetogramHistogram(GridHistogram())):
        expected = front_end.describe(Image(field.astype(np.float32), header=DISK))
        for threads in (1, 3):
            np.testing.assert_array_equal(front_end.describe(open_image(path), threads), expected)


@pytest.mark.parametrize("rotation", [0, 90, 180.01, 270, -90, 44, 400])
@pytest.mark.parametrize("shape", [(280, 300), (90, 200), (301, 64)])
def test_bands_are_counted_as_the_image_that_is_turned_and_masked(rotation, shape):
    rng = np.random.default_rng(1)
    field = rng.normal(0, 500, shape).astype(np.float32)
    field[rng.random(shape) < 0.1] = np.nan
    header = {
        **DISK,
        "CRPIX1": shape[1] / 2 + 3.3,
        "CRPIX2": shape[0] / 2 - 2.1,
        "RSUN_OBS": 0.4 * min(shape),
        "CROTA2": rotation,
    }
    grid = GridHistogram(3, 7)
    image = Image(field, header=header)
    expected = grid.transform(orient(image))[0] * (21 / field.size)
    np.testing.assert_array_equal(MagnetogramHistogram(grid).describe(image, 2), expected.astype(np.float32))


def test_the_fast_way_needs_no_astropy(tmp_path):
    path = tmp_path / "sun.fits"
    hdu = fits.CompImageHDU(np.arange(9000, dtype="i2").reshape(90, 100), fits.Header(DISK), compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    code = (
        "import sys, fasthash.io, fasthash.solar.field_map as f\n"
        f"f.FieldMap().describe(fasthash.io.open_image({os.fspath(path)!r}))\n"
        "assert not {'astropy', 'scipy', 'numba'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- headers -------------------------------------------------------------------------------------------------------


def test_cards_are_read_as_astropy_reads_them(tmp_path):
    cards = {
        "INTEGER": -12, "REAL": 1.5e-7, "YES": True, "NO": False, "TEXT": "it's / not a comment", "EMPTY": "",
        "BLANKS": "  leading", "LONG": "a long text, & more, " * 12, "COMPLEX": 1.5 - 2j, "BIG": 10**18,
        "HIERARCH ESO DET NAME": "x", "FORTRAN": 0,
    }  # fmt: skip
    for hdu, structure in (
        (fits.ImageHDU(np.ones((5, 6), "i2")), set()),
        (fits.CompImageHDU(np.ones((5, 6), "i2"), compression_type="RICE_1"), {"XTENSION", "PCOUNT", "GCOUNT"}),
    ):
        for key, value in cards.items():
            hdu.header[key] = (value, "a comment")
        hdu.header.add_comment("none of our business")
        path = tmp_path / "a.fits"
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)
        path.write_bytes(bad_files.recarded(path.read_bytes(), "FORTRAN", "1.25D+3"))
        with fits.open(path) as hdus:
            expected = {key: hdus[1].header[key] for key in hdus[1].header if key != "COMMENT"}
        ours = {
            key: value for key, value in read_image(path).header.items() if key not in ("SIMPLE", "EXTEND", "EXTNAME")
        }
        assert ours == {key: value for key, value in expected.items() if key not in structure}
        assert ours["FORTRAN"] == 1250


def test_what_cannot_be_understood_is_no_default(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(bad_files.plain(bitpix=16, BSCALE="NaN", data=bytes(2048)))
    with pytest.raises(FastHashError, match=r"a\.fits"):
        read_image(path)


# ---- streams -------------------------------------------------------------------------------------------------------


def decoded(level, stream, n, bytepix, blocksize, trailing=b""):
    """What the decoder makes of one tile in a heap that goes on with ``trailing``: int32 (n,), or None if damaged."""
    heap = np.frombuffer(stream + trailing, np.uint8)
    one, places = np.ones(1), np.zeros(1, np.int64)
    plane = _tiles.RicePlane((1, n), (1, n), heap, places, np.full(1, len(stream)), bytepix, blocksize, one, one * 0,
                             False, None, 0, np.zeros(1, np.float32), 0)  # fmt: skip
    integers, pixels = np.full(n, -7, np.int32), np.empty((1, n), np.float32)
    return None if plane.decode(level, 0, 1, integers, pixels) == 0 else integers


def wrapped(values, bytepix):
    return np.array(values).astype({1: np.uint8, 2: np.int16, 4: np.int32}[bytepix])


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), bytepix=st.sampled_from([1, 2, 4]), blocksize=st.sampled_from([16, 32, 5]))
def test_streams_come_back(seed, bytepix, blocksize):
    rng = np.random.default_rng(seed)
    values = fits_variants._integers(rng, int(rng.integers(1, 200)), 8 * bytepix).astype(f"i{bytepix}")
    stream = bytes(Rice1(blocksize=blocksize, bytepix=bytepix, tilesize=values.size).encode(values))
    expected = values.astype(np.int64) % 256**bytepix
    assert np.array_equal(reference.rice_decode(stream, values.size, bytepix, blocksize), expected)
    for level in LEVELS:
        for trailing in (b"", rng.bytes(40)):
            ours = decoded(level, stream, values.size, bytepix, blocksize, trailing)
            np.testing.assert_array_equal(ours, wrapped(values, bytepix))


def damaged(rng, stream):
    """The stream with some bytes changed, cut, added, made all alike, or replaced by noise."""
    changed = bytearray(stream)
    kind = rng.integers(6)
    at = int(rng.integers(len(changed)))
    if kind == 0:
        changed[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        changed[at:] = b""
    elif kind == 2:
        changed[at:at] = rng.bytes(int(rng.integers(1, 20)))
    elif kind == 3:
        changed[at:] = bytes([rng.choice([0, 255])]) * int(rng.integers(0, 60))
    elif kind == 4:
        changed[at : at + 8] = rng.bytes(8)
    else:
        changed = bytearray(rng.bytes(int(rng.integers(0, 80))))
    return bytes(changed) or b"\0"  # a tile without a stream is none of the decoder's


def test_damaged_streams_are_refused_or_decoded_as_they_stand():
    refused = 0
    cases = CASES or 1500
    for seed in range(cases):
        rng = np.random.default_rng(seed)
        bytepix, blocksize, n = int(rng.choice([1, 2, 4])), int(rng.choice([16, 32])), int(rng.integers(1, 120))
        values = fits_variants._integers(rng, n, 8 * bytepix).astype(f"i{bytepix}")
        stream = damaged(rng, bytes(Rice1(blocksize=blocksize, bytepix=bytepix, tilesize=n).encode(values)))
        expected = reference.rice_decode(stream, n, bytepix, blocksize)
        refused += expected is None
        for level in LEVELS:
            ours = decoded(level, stream, n, bytepix, blocksize, rng.bytes(int(rng.integers(0, 9))))
            assert (ours is None) == (expected is None), seed
            if ours is not None:
                np.testing.assert_array_equal(ours, wrapped(expected, bytepix))
    assert cases / 4 < refused < cases


@pytest.mark.parametrize("family", ["rice", "quantised"])
def test_damaged_files_are_read_or_refused(family, tmp_path):
    path = tmp_path / "broken.fits"
    for seed in range(CASES or 150):
        rng = np.random.default_rng(seed)
        data = bytearray(fits_variants.variant(np.random.default_rng(seed // 50), family)[0])
        # The header's text, the table, or the heap.
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(bad_files.BLOCK, len(data))] = rng.choice([rng.integers(256), 0, 255, ord("9")])
        path.write_bytes(data)
        with contextlib.suppress(ReadError):
            assert read_image(path).pixels.dtype == np.float32


def test_a_damaged_tile_is_named_by_every_way_to_it(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(0, 300, (280, 300)).astype("i2")
    data = fits_variants._written(fits.CompImageHDU(values, fits.Header(DISK), compression_type="RICE_1"))
    end = data.index(b"END".ljust(80), bad_files.BLOCK)
    table = end + 80 + (-end - 80) % bad_files.BLOCK
    count, start = np.frombuffer(data, ">i4", 2, table + 8 * 123)
    at = table + 8 * 280 + start + count // 2
    path = tmp_path / "sun.fits"
    path.write_bytes(data[:at] + b"\xff" * 20 + data[at + 20 :])
    for use in (
        read_image,
        lambda name: open_image(name).pixels,
        lambda name: FieldMap().describe(open_image(name), 2),
    ):
        with pytest.raises(ReadError, match=r"sun\.fits: compression tile 123 is damaged"):
            use(path)


@pytest.mark.parametrize("level", LEVELS)
def test_pixels_are_counted(level):
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (3, 77), (64, 4096)):
        pixels = rng.choice(np.array([0, -1.5, np.nan, np.inf, -np.inf, 3e38, 1e-45], np.float32), shape)
        assert _tiles.count(level, pixels) == (np.isfinite(pixels).sum(), np.isinf(pixels).sum())


def test_the_table_of_dithers_ends_as_the_standard_says():
    from fasthash._bands import _random

    assert _random()[-1] == np.float32(1043618065 / (2**31 - 1))
