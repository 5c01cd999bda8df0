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
from fasthash._source import File, digest
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


def getdata(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fits.getdata(path)


def imagecodecs_loop(path):
    """The integers alone, tile by tile, where imagecodecs is installed."""
    try:
        from imagecodecs import rcomp_decode
    except ImportError:
        return {}
    with fits.open(path, disable_image_compression=True) as hdus:
        streams = [np.array(row) for row in hdus[1].data["COMPRESSED_DATA"]]
    return {"imagecodecs": lambda: [rcomp_decode(stream, shape=SIZE, dtype="i4", nblock=32) for stream in streams]}


def keep(benchmark, medians):
    benchmark.extra_info.update({f"{name}_ms": round(1e3 * seconds, 3) for name, seconds in medians.items()})
    print(f"\n{benchmark.extra_info}")


def describing(encoder, path):
    """From the file to the encoder's descriptor, on one thread and on two."""
    front_end = FRONT_ENDS[encoder]
    return {
        "one_thread": lambda: front_end.describe(open_image(path)),
        "two_threads": lambda: front_end.describe(open_image(path), 2),
    }


@pytest.mark.parametrize("encoder", FRONT_ENDS)
def test_rice(encoder, benchmark, timed_in_turns, rice_file):
    ours = describing(encoder, rice_file)
    peers = {"getdata": lambda: getdata(rice_file), "read": rice_file.read_bytes, **imagecodecs_loop(rice_file)}
    keep(benchmark, timed_in_turns(rounds=9, **ours, **peers))
    benchmark.extra_info["file"] = rice_file.name
    benchmark(ours["one_thread"])


@pytest.mark.parametrize("encoder", FRONT_ENDS)
def test_plain(encoder, benchmark, timed_in_turns, plain_file):
    """The floor is reading the file's bytes and one pass over them; getdata maps the file and has yet to read it."""
    ours = describing(encoder, plain_file)
    peers = {
        "getdata": lambda: getdata(plain_file).astype(np.float32),
        "read": plain_file.read_bytes,
        "read_and_one_pass": lambda: np.max(np.frombuffer(plain_file.read_bytes(), np.float32)),
    }
    keep(benchmark, timed_in_turns(rounds=9, **ours, **peers))
    benchmark(ours["one_thread"])


def test_rice_to_array(benchmark, timed_in_turns, rice_file):
    """All pixels: what others than the solar encoders need."""
    np.testing.assert_array_equal(read_image(rice_file).pixels, getdata(rice_file).astype(np.float32))
    calls = {"one_thread": lambda: open_image(rice_file).pixels, "getdata": lambda: getdata(rice_file)}
    keep(benchmark, timed_in_turns(rounds=9, **calls))
    benchmark(calls["one_thread"])


def test_steps_of_rice(benchmark, timed_in_turns, rice_file):
    """Where the time of one thread goes."""
    image, array = open_image(rice_file), read_image(rice_file)
    steps = {
        "open": lambda: open_image(rice_file),
        "decode": lambda: image.fold_bands(lambda *_: None, lambda *_: None),
        "digest": lambda: digest(File(str(rice_file))),
        **{name: lambda front_end=each: front_end.describe(array) for name, each in FRONT_ENDS.items()},
    }
    keep(benchmark, timed_in_turns(rounds=9, **steps))
    benchmark(steps["decode"])
