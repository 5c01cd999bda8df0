"""A frame beside the simulated one of its date: laid pixel on pixel whatever the frame's geometry, and measured."""

import json
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits

from fasthash.errors import ArgumentError, ReadError
from fasthash.solar.active_regions import statistical_regions
from fasthash.solar.compare import Comparison, compare, draw
from fasthash.solar.simulator import render, write_fits

START = "2014-04-01T00:00"


@pytest.fixture
def frame(tmp_path):
    """A simulated frame, of twice the size and turned, in the place of a real one."""

    def write(rotation=0.0, seed=0, time=START):
        regions = statistical_regions(time, 1, seed)
        path = tmp_path / "frame.fits"
        write_fits(path, render(regions, time, 256, seed, rotation=rotation), time, seed, rotation)
        return path

    return write


@pytest.mark.parametrize("rotation", [0.0, 180.0, -37.0])
def test_the_same_sun_lies_pixel_on_pixel(frame, rotation):
    found = compare(frame(rotation), size=128)
    assert found.rotation == (-180.0 if rotation == 180 else rotation)
    np.testing.assert_array_equal(np.isnan(found.real), np.isnan(found.simulated))
    assert np.isfinite(found.real[found.compared]).all()
    assert 0.85 < found.compared.sum() / np.isfinite(found.real).sum() < 0.93  # 0.95 of the radius, squared
    real, simulated = found.real[found.compared], found.simulated[found.compared]
    assert np.corrcoef(real, simulated)[0, 1] > 0.9
    assert found.distance() < 0.1


def test_distance_is_the_share_of_pixels_in_other_bins():
    field = np.repeat(np.float32([0, 0, 100, -100]), 4).reshape(4, 4)
    everywhere = np.ones((4, 4), bool)
    for other, expected in ((field, 0.0), (-field, 0.0), (np.abs(field), 0.25), (field + 1000, 1.0)):
        assert Comparison(field, other, everywhere, 0.0, None).distance() == expected


def test_report_tells_means_and_quantiles_of_what_is_compared(frame):
    found = compare(frame(), size=64)
    report = found.to_dict()
    assert report["time"] == "2014-04-01T00:00:00Z"
    strength = np.abs(found.real[found.compared])
    assert report["real"]["mean"] == pytest.approx(strength.mean(), rel=0.01)
    assert report["real"]["quantiles"][1] == pytest.approx(np.median(strength), rel=0.01)


def test_picture_and_json_of_the_command(frame, tmp_path):
    draw(compare(frame(180.0), size=64), tmp_path / "one.png", "regions at random")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    command = [sys.executable, "-m", "fasthash.solar.compare"]
    arguments = ["--size", "64", "--json", "-o", tmp_path / "two.png"]
    done = subprocess.run([*command, frame(), *arguments], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["size"] == 64
    done = subprocess.run([*command, tmp_path / "none.fits", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "none.fits" in done.stderr


def test_what_cannot_be_compared_is_named(frame, tmp_path):
    np.save(tmp_path / "pixels.npy", np.zeros((64, 64), np.float32))
    with pytest.raises(ReadError, match=r"pixels\.npy.*disk"):
        compare(tmp_path / "pixels.npy", size=32)
    with pytest.raises(ArgumentError, match="size"):
        compare(frame(), size=512)
    with fits.open(frame(), mode="update") as hdus:
        hdus[0].header["CRPIX1"] = 5000.0
    with pytest.raises(ReadError, match=r"frame\.fits: no valid pixel on the solar disk"):
        compare(tmp_path / "frame.fits", size=64)


def test_the_field_is_like_that_of_a_real_frame(real_solar):
    found = compare(real_solar / "hmi.M_720s.20160707_010000_TAI.fits", real_solar / "active-regions" / "g2016.txt")
    assert found.distance() < 0.08
    real, simulated = (found.to_dict()[name] for name in ("real", "simulated"))
    np.testing.assert_allclose(simulated["quantiles"][:4], real["quantiles"][:4], rtol=0.25)
