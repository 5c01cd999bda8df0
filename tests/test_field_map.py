"""The field map against a NumPy oracle, and one Sun in many guises against itself."""

import numpy as np
import pytest
from PIL import Image as Pillow

import fasthash as fh
from fasthash.descriptor import GridHistogram
from fasthash.encoder import FRONT_ENDS
from fasthash.io import Image, read_image
from fasthash.solar.field_map import FieldMap, field_map
from fasthash.solar.magnetogram import Disk, MagnetogramHistogram, disk_of_picture, flatten


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
    assert difference(image, Image(np.nan_to_num(image.pixels))) < 0.06  # a sky of zeros


def picture(image, white=1000.0, quiet=127.5, darkening=0.0, sky=0.0):
    """The image drawn as people do: rows down, ``white`` gauss white, a uniform sky, a time stamp in a corner."""
    rows, columns = np.indices(image.pixels.shape)
    distance = np.hypot(rows - disk(image).y, columns - disk(image).x) / disk(image).radius
    mu = np.sqrt(np.maximum(0, 1 - distance**2))
    grey = quiet * (1 - darkening * (1 - mu)) + image.pixels * (127.5 / white)
    grey = np.where(np.isfinite(grey), np.clip(np.round(grey), 0, 255), sky)[::-1]
    stamp = np.random.default_rng(5).random((8, 80)) > 0.5
    grey[-10:-2, 2:82][stamp] = 255 - sky
    return Image(np.ascontiguousarray(grey, np.float32), "drawn.png", full_scale=255.0)


def disk(image):
    return Disk(image.header["CRPIX1"] - 1, image.header["CRPIX2"] - 1, image.header["RSUN_OBS"], 0.0)


def assert_disk_found(drawn, expected, limit=0.5):
    found = disk_of_picture(drawn.pixels[::-1])
    assert found is not None
    np.testing.assert_allclose((found.x, found.y, found.radius), (expected.x, expected.y, expected.radius), atol=limit)


def likeness(image, drawn):
    """Cosine of the angle between two maps: what they have in common whatever the scale of either."""
    a, b = (FieldMap().describe(which).ravel().astype(float) for which in (image, drawn))
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("where", [{}, {"x": 120, "y": 139.4}, {"size": 300, "radius": 70.3, "x": 215, "y": 80.6}])
@pytest.mark.parametrize(
    "drawn",
    [
        {"white": 1000},
        {"white": 1000, "sky": 255},
        {"white": 3000},
        {"white": 500},
        {"white": 2000, "quiet": 40},
        {"white": 2000, "quiet": 165, "darkening": 0.6},
    ],
)
def test_a_picture_has_the_map_of_its_numbers(where, drawn):
    image = sun(**where)
    assert_disk_found(picture(image, **drawn), disk(image))
    assert likeness(image, picture(image, **drawn)) > 0.97


def test_spots_text_noise_and_jpeg_do_not_move_the_disk(tmp_path):
    rng = np.random.default_rng(2)
    image = sun(x=120, y=131.5)
    rows, columns = np.indices(image.pixels.shape)
    for angle, field in ((0.3, -5000), (1.9, 5000), (4.0, -5000)):  # black as the sky, and white, on the very limb
        x, y = 120 + 108 * np.cos(angle), 131.5 + 108 * np.sin(angle)
        image.pixels[(rows - y) ** 2 + (columns - x) ** 2 < 400] += field
    image.pixels[:] += rng.normal(0, 150, image.pixels.shape)
    drawn = picture(image)
    drawn.pixels[100:140, :30] = 255.0  # text that runs into the disk
    noisy = np.clip(drawn.pixels + rng.normal(0, 4, drawn.pixels.shape), 0, 255).astype(np.uint8)
    Pillow.fromarray(noisy).save(tmp_path / "sun.jpg", quality=60)
    assert_disk_found(read_image(tmp_path / "sun.jpg"), disk(image))


def test_the_disk_of_a_picture_may_be_large_cut_or_on_no_sky_at_all():
    for cut in (0, 12):
        image = sun(size=1400, radius=690, x=700 - cut, y=699.5)  # every pixel is not looked at beyond 1024
        image.pixels[:, :1] = np.nan
        assert_disk_found(picture(image), disk(image), 1.0)
    image = sun(x=120)
    transparent = np.where(np.isfinite(image.pixels), image.pixels / 8 + 127.5, np.nan)[::-1]
    assert_disk_found(Image(transparent.astype(np.float32), full_scale=255.0), disk(image))


def test_what_is_no_disk_on_a_sky_fills_the_picture():
    rng = np.random.default_rng(3)
    image = sun(radius=127.5)
    square = np.zeros((256, 256))
    square[60:200, 60:200] = 200
    half = np.where(np.arange(256) < 110, np.nan_to_num(picture(sun()).pixels), 0)
    spots_on_grey = np.nan_to_num(image.pixels)[::-1] / 1000 * 127.5 + 127.5
    for grey in (square, half, spots_on_grey, rng.uniform(0, 255, (256, 256)), np.eye(256) * 255):
        drawn = Image(np.ascontiguousarray(grey, np.float32), full_scale=255.0)
        assert disk_of_picture(drawn.pixels) is None
        whole = (drawn.pixels[::-1] / 255 - 0.5) * 2000
        expected = field_map(whole, Disk(127.5, 127.5, 128.0, 0.0))
        np.testing.assert_allclose(FieldMap().describe(drawn), expected, atol=0.01)
    assert difference(image, Image(spots_on_grey.astype(np.float32), full_scale=255.0)) < 0.06


@pytest.mark.parametrize("grey", [0.0, 255.0, 127.5, np.nan])
def test_a_picture_without_any_contrast_is_an_error_that_names_the_file(grey):
    blank = Image(np.full((64, 64), grey, np.float32), "blank.png", full_scale=255.0)
    with pytest.raises(fh.FastHashError, match=r"blank\.png"):
        FieldMap().describe(blank)
    disk_alone = np.where(np.isnan(sun().pixels), 0, 100).astype(np.float32)
    with pytest.raises(fh.FastHashError, match=r"blank\.png"):
        FieldMap().describe(Image(disk_alone, "blank.png", full_scale=255.0))


def test_white_of_a_magnetogram_is_set_by_its_quiet_network():
    rng = np.random.default_rng(4)
    image = sun(size=512, radius=230)
    image.pixels[:] += rng.normal(0, 15, image.pixels.shape)
    maps = [FieldMap().describe(picture(image, white)) for white in (60, 120, 240)]
    quiet = [np.median(np.abs(cells[16:48, 16:48])) for cells in maps]
    np.testing.assert_allclose(quiet, quiet[1], rtol=0.1)
    # White light has no such network: its grey is left as it is.
    quiet = [FieldMap().describe(picture(image, white, quiet=180))[16:48, 16:48] for white in (60, 120)]
    assert np.median(np.abs(quiet[0])) == pytest.approx(2 * np.median(np.abs(quiet[1])), rel=0.1)


def test_flat_is_the_departure_from_the_median_of_a_ring():
    rng = np.random.default_rng(6)
    pixels = rng.normal(100, 10, (90, 90)).astype(np.float32)
    pixels[rng.random(pixels.shape) < 0.1] = np.nan
    where = Disk(46.2, 41.7, 40.0, 0.0)
    rows, columns = np.indices(pixels.shape)
    ring = np.floor(np.hypot(rows - where.y, columns - where.x)).astype(int)  # 40 rings in 40 pixels
    expected = np.full_like(pixels, np.nan)
    for i in range(39):
        expected[ring == i] = pixels[ring == i] - np.nanmedian(pixels[ring == i])
    flat, quiet = flatten(pixels, where)
    np.testing.assert_allclose(flat, expected, atol=1e-4)
    assert quiet.shape == (39,)
    assert quiet[20] == np.nanmedian(pixels[ring == 20])


def test_nothing_to_see_is_an_error_that_names_the_file():
    for header in ({}, sun().header):
        with pytest.raises(fh.FastHashError, match=r"empty\.fits"):
            FieldMap().describe(Image(np.full((256, 256), np.nan, np.float32), "empty.fits", header=header))


def test_an_array_too_weak_for_gauss_is_brought_to_their_strength():
    noise = np.random.default_rng(0).normal(0, 8, (256, 256)).astype(np.float32)
    image = sun(radius=127.5)
    maps = [FieldMap().describe(Image((image.pixels + noise) * np.float32(unit))) for unit in (1, 1e-3, 1e-5)]
    np.testing.assert_allclose(maps[1], maps[2], rtol=1e-3, atol=1e-3)
    scale = np.linalg.norm(maps[1]) / np.linalg.norm(maps[0])
    np.testing.assert_allclose(maps[1], maps[0] * scale, rtol=1e-3, atol=1e-3)
    assert np.median(np.abs(maps[1][16:48, 16:48])) == pytest.approx(1.6, rel=0.3)
    header = sun(radius=127.5).header  # says that it is gauss
    assert np.abs(FieldMap().describe(Image(image.pixels * np.float32(1e-3), header=header))).max() < 3


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


def test_cells_are_roots_of_the_mean_field_from_south_to_north():
    front_end = FieldMap(64)
    assert front_end.cell_grid == (16, 16)
    rng = np.random.default_rng(0)
    row = rng.normal(0, 200, (64, 64)).astype("f4")
    cells = front_end.cells(row)
    assert (cells.dtype, cells.shape) == (np.uint8, (16, 16, 2))
    means = row.reshape(16, 4, 16, 4).mean(axis=(1, 3))
    steps = (cells[..., 0].astype(float) - 128) / 2
    assert np.abs(steps - np.sign(means) * np.sqrt(np.abs(means))).max() <= 0.2500001
    assert (cells[..., 1] >= cells[..., 0]).all()
    row[:32] = 0
    assert (front_end.cells(row)[:8] == 128).all()
    assert (front_end.cells(row)[8:, :, 1] > 128).all()
    assert front_end.cells(np.full((64, 64), -1e6, "f4")).min() == 0
    assert FieldMap(24).cells(row[:24, :24]).shape == (8, 8, 2)


def test_cells_of_histograms_are_roots_of_shares():
    front_end = MagnetogramHistogram(GridHistogram())
    pixels = np.random.default_rng(0).normal(0, 300, (50, 60)).astype("f4")
    row = front_end.describe(Image(pixels))
    cells = front_end.cells(row)
    assert (cells.dtype, cells.shape) == (np.uint8, (*front_end.cell_grid, 16))
    assert np.abs(cells.reshape(-1) / 200 - np.sqrt(row)).max() <= 0.5 / 200 + 1e-6
