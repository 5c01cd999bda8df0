"""The field map against a NumPy oracle, and one Sun in many guises against itself."""

import numpy as np
import pytest

import fasthash as fh
from fasthash.encoder import FRONT_ENDS
from fasthash.io import Image
from fasthash.solar.field_map import FieldMap, field_map
from fasthash.solar.magnetogram import Disk


def sun(size=256, radius=110.0, x=None, y=None, rotation=0.0):
    """A disk of smooth spots of either sign, as its header tells: north turned ``rotation`` degrees to the right."""
    middle = (size - 1) / 2
    x, y = middle if x is None else x, middle if y is None else y
    rows, columns = np.indices((size, size))
    u, v, turn = (columns - x) / radius, (rows - y) / radius, np.radians(rotation)
    west, north = u * np.cos(turn) - v * np.sin(turn), u * np.sin(turn) + v * np.cos(turn)
    field = np.zeros((size, size))
    for a, b, peak in ((0.3, 0.2, 800), (0.42, 0.15, -600), (-0.5, -0.3, 500), (0.1, 0.7, -300)):
        field += peak * np.exp(-((west - a) ** 2 + (north - b) ** 2) / 0.01)
    field[u * u + v * v > 1] = np.nan
    header = {"CRPIX1": x + 1, "CRPIX2": y + 1, "CDELT1": 1.0, "CDELT2": 1.0, "RSUN_OBS": radius, "CROTA2": rotation}
    return Image(field.astype(np.float32), header=header)


def difference(image, other):
    a, b = (FieldMap().describe(which) for which in (image, other))
    return np.linalg.norm(a - b) / np.linalg.norm(a)


@pytest.mark.parametrize(
    ("other", "limit"),
    [
        ({"size": 512, "radius": 220}, 0.01),
        ({"size": 1000, "radius": 470}, 0.01),
        ({"x": 120, "y": 139.4}, 0.01),
        ({"size": 300, "radius": 100.3, "x": 170.2, "y": 130.9}, 0.01),
        ({"rotation": 90}, 1e-5),
        ({"rotation": 180}, 1e-5),
        ({"rotation": -90, "x": 120, "y": 130.5}, 0.01),
        ({"rotation": 3}, 0.01),
        ({"rotation": 176, "radius": 105.5}, 0.01),
        ({"rotation": 40}, 0.01),
    ],
)
def test_one_sun_has_one_map(other, limit):
    assert difference(sun(), sun(**other)) < limit


def test_half_a_turn_changes_nothing():
    image = sun(x=120, y=131.25)
    height, width = image.pixels.shape
    header = dict(image.header, CROTA2=180.0, CRPIX1=width - 120, CRPIX2=height - 131.25)
    turned = Image(np.ascontiguousarray(image.pixels[::-1, ::-1]), header=header)
    np.testing.assert_allclose(FieldMap().describe(turned), FieldMap().describe(image), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "radius", "cells"), [(48, 24, 8), (48, 20.7, 12), (16, 7.3, 24)])
def test_cells_are_means_by_area(size, radius, cells):
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(size, size)).astype(np.float32)
    pixels[rng.random(pixels.shape) < 0.2] = np.nan
    disk = Disk(size / 2 - 1.3, size / 2 + 0.4, radius, 0.0)
    expected = np.zeros((cells, cells))
    side = 2 * radius / cells
    for i, j in np.ndindex(cells, cells):
        total = area = 0.0
        for row, column in np.ndindex(pixels.shape):
            if np.isnan(pixels[row, column]) or np.hypot(row - disk.y, column - disk.x) > radius:
                continue
            shared = 1.0
            for pixel, centre, cell in ((row, disk.y, i), (column, disk.x, j)):
                low = centre - radius + cell * side
                shared *= max(0.0, min(pixel + 0.5, low + side) - max(pixel - 0.5, low))
            total += shared * pixels[row, column]
            area += shared
        expected[i, j] = total / max(area, side * side / 2)
    np.testing.assert_allclose(field_map(pixels, disk, cells), expected, atol=2e-5)


def test_whole_cells_are_plain_means():
    pixels = np.random.default_rng(1).normal(size=(128, 128)).astype(np.float32)
    cells = field_map(pixels, Disk(63.5, 63.5, 64.0, 0.0), 16)
    np.testing.assert_allclose(cells[4:12, 4:12], pixels.reshape(16, 8, 16, 8).mean((1, 3))[4:12, 4:12], atol=1e-6)


def test_missing_pixels_and_the_sky_do_not_count():
    image = sun()
    holes = image.pixels.copy()
    holes[::7, ::5] = np.nan
    assert difference(image, Image(holes, header=image.header)) < 0.02
    sky = np.where(np.isnan(image.pixels), np.float32(1e5), image.pixels)
    assert difference(image, Image(sky, header=image.header)) == 0
    gone = image.pixels.copy()
    gone[:128] = np.nan
    cells = FieldMap().describe(Image(gone, header=image.header))
    assert not cells[:31].any()
    assert np.isfinite(cells).all()


def test_without_a_header_the_valid_pixels_tell_the_disk():
    image = sun(size=300, x=140, y=150)
    assert difference(image, Image(image.pixels)) < 0.06


def test_pictures_are_grey_and_upside_down():
    image = sun(radius=127.5)
    grey = (np.nan_to_num(image.pixels) / 2000 + 0.5) * 255
    picture = Image(np.ascontiguousarray(grey[::-1]).astype(np.float32), full_scale=255.0)
    assert difference(image, picture) < 0.06


def test_nothing_to_see_is_an_error_that_names_the_file():
    for header in ({}, sun().header):
        with pytest.raises(fh.FastHashError, match=r"empty\.fits"):
            FieldMap().describe(Image(np.full((256, 256), np.nan, np.float32), "empty.fits", header=header))


def test_the_field_of_mdi_is_brought_to_that_of_hmi():
    image = sun()
    header = dict(image.header, TELESCOP="SOHO", INSTRUME="MDI     ")
    assert difference(image, Image(image.pixels * np.float32(1.4), header=header)) < 1e-6
    hmi = dict(image.header, TELESCOP="SDO/HMI", INSTRUME="HMI_SIDE1")
    assert difference(image, Image(image.pixels, header=hmi)) == 0


def test_settings_come_back():
    front_end = FieldMap(32)
    assert FieldMap.from_settings(front_end.settings()).size == 32
    assert front_end.settings()["kind"] in FRONT_ENDS
    assert front_end.describe(sun()).shape == (32, 32)
    assert front_end.describe(sun()).dtype == np.float32
