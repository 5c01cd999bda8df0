"""From a FITS file of 4096 x 4096 pixels to the descriptors of the solar encoders, beside what reading alone costs.

python -m pytest -s benchmarks/bench_file.py

The Rice-compressed file is a real magnetogram of HMI where one lies beside this checkout, else one made to be like it.
Everything is read from memory that the system keeps of files: no disk is measured.
"""

import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from fasthash import GridHistogram
from fasthash.io import open_image, read_image
from fasthash.solar.field_map import FieldMap
from fasthash.solar.magnetogram import MagnetogramHistogram

SIZE = 4096
REAL = Path(__file__).parents[2] / "shared/data/solar/hmi.M_720s.20111217_060000_TAI.fits"
FRONT_ENDS = {"solar": FieldMap(), "solar-paper": MagnetogramHistogram(GridHistogram())}
DISK = {"CRPIX1": 2048.5, "CRPIX2": 2048.5, "CDELT1": 0.504, "CDELT2": 0.504, "RSUN_OBS": 970.0, "CROTA2": 180.013}


def magnetogram():
    """Noise of 10 G on a disk, with some strong field; NaN off it."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    field = rng.normal(0, 10, (SIZE, SIZE))
    field += rng.normal(0, 400, (SIZE, SIZE)) * (rng.random((SIZE, SIZE)) < 0.02)
    field[np.hypot(x, y) > 970 / 0.504] = np.nan
    return field.astype(np.float32)


@pytest.fixture(scope="module")
def rice_file(tmp_path_factory):
    if REAL.is_file():
        return REAL
    path = tmp_path_factory.mktemp("rice") / "like-hmi.fits"
    field = magnetogram()
    tenths = np.where(np.isnan(field), -(2**31), np.round(10 * np.nan_to_num(field))).astype(np.int32)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(tenths, fits.Header(DISK))]).writeto(path)
    with fits.open(path, disable_image_compression=True, mode="update") as hdus:
        hdus[1].header["BSCALE"], hdus[1].header["BLANK"] = 0.1, -(2**31)
    return path


@pytest.fixture(scope="module")
def plain_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "float32.fits"
    fits.PrimaryHDU(magnetogram(), fits.Header(DISK)).writeto(path)
    return path


def quietly(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


def imagecodecs_loop(path):
    """The integers alone, tile by tile; None where imagecodecs is not installed."""
    try:
        from imagecodecs import rcomp_decode
    except ImportError:
        return None
    with fits.open(path, disable_image_compression=True) as hdus:
        streams = [np.array(row) for row in hdus[1].data["COMPRESSED_DATA"]]
    return lambda: [rcomp_decode(stream, shape=SIZE, dtype="i4", nblock=32) for stream in streams]


def compare(benchmark, medians, ours):
    for name, seconds in medians.items():
        benchmark.extra_info[f"{name}_ms"] = round(1e3 * seconds, 2)
        if name != ours:
            benchmark.extra_info[f"{name}_by_{ours}"] = round(seconds / medians[ours], 2)
    print(f"\n{benchmark.extra_info}")


@pytest.mark.parametrize("encoder", FRONT_ENDS)
def test_rice_file_to_descriptor(encoder, benchmark, timed_in_turns, rice_file):
    front_end = FRONT_ENDS[encoder]
    np.testing.assert_array_equal(
        read_image(rice_file).pixels, quietly(lambda: fits.getdata(rice_file)).astype(np.float32)
    )
    peers = {"imagecodecs": imagecodecs_loop(rice_file)}
    medians = timed_in_turns(
        rounds=7,
        one_thread=lambda: front_end.describe(open_image(rice_file)),
        two_threads=lambda: front_end.describe(open_image(rice_file), 2),
        astropy_getdata=lambda: quietly(lambda: fits.getdata(rice_file)),
        read=rice_file.read_bytes,
        **{name: call for name, call in peers.items() if call},
    )
    benchmark.extra_info["file"] = rice_file.name
    benchmark.extra_info["getdata_by_two_threads"] = round(medians["astropy_getdata"] / medians["two_threads"], 2)
    compare(benchmark, medians, "one_thread")
    benchmark(lambda: front_end.describe(open_image(rice_file)))


@pytest.mark.parametrize("encoder", FRONT_ENDS)
def test_plain_file_to_descriptor(encoder, benchmark, timed_in_turns, plain_file):
    front_end = FRONT_ENDS[encoder]

    def read_and_one_pass():
        return np.max(np.frombuffer(plain_file.read_bytes(), np.float32))

    medians = timed_in_turns(
        rounds=7,
        one_thread=lambda: front_end.describe(open_image(plain_file)),
        two_threads=lambda: front_end.describe(open_image(plain_file), 2),
        astropy_getdata=lambda: fits.getdata(plain_file).astype(np.float32),
        read=plain_file.read_bytes,
        read_and_one_pass=read_and_one_pass,
    )
    compare(benchmark, medians, "one_thread")
    benchmark(lambda: front_end.describe(open_image(plain_file)))


def test_rice_file_to_array(benchmark, timed_in_turns, rice_file):
    medians = timed_in_turns(
        rounds=7,
        read_image=lambda: read_image(rice_file),
        astropy_getdata=lambda: quietly(lambda: fits.getdata(rice_file)),
    )
    compare(benchmark, medians, "read_image")
    benchmark(lambda: read_image(rice_file))
