"""Magnetic regions: spots of known place, flux and area on an analytic Sun, in many guises; real ones where at hand."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from commands import run

import fasthash as fh
from fasthash.io import Image
from fasthash.solar.heliographic import View, view_of
from fasthash.solar.magnetogram import Disk, disk_from_header
from fasthash.solar.regions import LEAST_MU, MIN_AREA, SMOOTHING, THRESHOLD, draw_regions, find_regions
from fasthash.solar.simulator import render, write_fits

RADIUS_CM = 6.96e10
HEMISPHERE_CM2 = 2 * np.pi * RADIUS_CM**2


def direction(latitude, longitude, b0=0.0):
    """Unit vector: x west, y north in the sky, z to an observer at ``b0``."""
    lat, lon, tilt = np.radians([latitude, longitude, b0])
    x, y, z = np.cos(lat) * np.sin(lon), np.sin(lat), np.cos(lat) * np.cos(lon)
    return np.array([x, y * np.cos(tilt) - z * np.sin(tilt), z * np.cos(tilt) + y * np.sin(tilt)])


def sun(*spots, size=256, b0=0.0, rotation=0.0, noise=0.0, seed=0, **cards):
    """A Sun with spots (latitude, longitude, peak of the radial field in gauss, sigma in degrees) as Gaussians."""
    radius = size * 0.46
    middle = (size - 1) / 2
    view = View(Disk(middle + 1.7, middle - 2.3, radius, rotation), b0, 0.0, np.radians(0.2667))
    mu, place, _ = view.surface((size, size))
    field = np.zeros((size, size))
    for latitude, longitude, peak, sigma in spots:
        apart = np.arccos(np.clip(np.tensordot(direction(latitude, longitude, b0), place, 1), -1, 1))
        field += peak * np.exp(-((apart / np.radians(sigma)) ** 2) / 2)
    field = field * mu + noise * np.random.default_rng(seed).normal(size=field.shape)
    field[mu == 0] = np.nan
    header = {
        "CRPIX1": view.disk.x + 1,
        "CRPIX2": view.disk.y + 1,
        "CDELT1": 0.2667 * 3600 / radius,
        "CDELT2": 0.2667 * 3600 / radius,
        "CROTA2": rotation,
        "RSUN_OBS": 0.2667 * 3600,
        "HGLT_OBS": b0,
        **cards,
    }
    return Image(field.astype(np.float32), "sun.fits", np.datetime64("2014-05-01T00:00:00.000"), header)


def bipole(latitude, longitude, peak=1500.0, sigma=3.0, apart=12.0):
    half = apart / 2 / np.cos(np.radians(latitude))
    return (latitude, longitude + half, peak, sigma), (latitude, longitude - half, -peak, sigma)


def positions(table):
    return [(region.latitude.value, region.longitude.value) for region in table]


# ---- where, how large, how strong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("latitude", "longitude"), [(0, 0), (0, 60), (0, -60), (35, 30), (-50, 0), (-25, -45)])
def test_a_spot_of_known_flux_area_and_place(latitude, longitude):
    (region,) = find_regions(sun((latitude, longitude, 1500, 3)))
    s = np.radians(3)
    flux = 2 * np.pi * (s * RADIUS_CM) ** 2 * 1500
    # What the Gaussian mean makes of the spot at the disk's centre, and where it falls to the threshold.
    peak, width2 = 1500 * s**2 / (s**2 + SMOOTHING**2), s**2 + SMOOTHING**2
    area = np.pi * 2 * width2 * np.log(peak / THRESHOLD) * RADIUS_CM**2 / HEMISPHERE_CM2 * 1e6
    assert region.unsigned_flux.to_value("Mx") == pytest.approx(flux, rel=0.04)
    assert region.signed_flux == region.unsigned_flux
    assert region.area.value == pytest.approx(area, rel=0.07)
    assert region.area.to_value("Mm2") == pytest.approx(region.area.value * HEMISPHERE_CM2 * 1e-22, rel=1e-9)
    assert region.latitude.to_value("deg") == pytest.approx(latitude, abs=0.3)
    assert region.longitude.to_value("deg") == pytest.approx(longitude, abs=0.3)
    assert region.peak_field.to_value("G") == pytest.approx(1500, rel=0.04)


def test_a_bipole_is_one_region_with_two_polarities_that_touch():
    table = find_regions(sun(*bipole(15, 20)))
    (region,) = table
    flux = 2 * np.pi * (np.radians(3) * RADIUS_CM) ** 2 * 1500
    overlap = math.erfc(2 / math.sqrt(2))  # the middle is two sigma from either spot: what lies beyond cancels
    assert region.unsigned_flux.value == pytest.approx(2 * flux * (1 - overlap), rel=0.04)
    assert abs(region.signed_flux.value) < 0.02 * flux
    assert (region.number, region.leading_polarity) == (1, 1)
    assert region.leading_share == pytest.approx(0.5, abs=0.01)
    assert region.polarities_touch
    assert positions(table)[0] == pytest.approx((15, 20), abs=0.3)


def test_the_western_part_leads():
    (region,) = find_regions(sun((0, -3, 1200, 3), (0, 5, -800, 3)))
    assert region.leading_polarity == -1
    assert region.leading_share == pytest.approx(0.4, abs=0.03)
    assert region.signed_flux.value > 0


def test_what_is_apart_is_two_regions_and_the_stronger_is_the_first():
    table = find_regions(sun((10, -20, 900, 2), (10, 20, -1500, 2)))
    assert [region.signed_flux.value > 0 for region in table] == [False, True]
    assert [region.number for region in table] == [1, 2]
    assert np.allclose(positions(table), [(10, 20), (10, -20)], atol=0.3)
    assert not any(region.polarities_touch for region in table)
    assert [region.leading_share for region in table] == pytest.approx([1, 1])


def test_two_halves_of_a_bipole_may_be_further_apart_than_pieces_of_one_sign():
    """Spots of 1.5 degrees exceed the threshold out to 4.2, so that 10 apart they leave 1.6 degrees (19 Mm)."""
    for apart, n, touch in ((8, 1, True), (10, 1, False), (13, 2, False)):
        table = find_regions(sun(*bipole(0, 0, sigma=1.5, apart=apart)))
        assert [region.polarities_touch for region in table] == [touch] * n
    assert len(find_regions(sun((0, 5, 1500, 1.5), (0, -5, 1500, 1.5)))) == 2


def test_a_whole_bipole_is_no_half_of_another():
    """Two in a row stay two, though their facing polarities are as near as the halves of one may be."""
    assert len(find_regions(sun(*bipole(0, 8.5, 1500, 1.5, 7), *bipole(0, -8.5, 1400, 1.5, 7)))) == 2


# ---- one Sun in many guises ----------------------------------------------------------------------------------------

SPOTS = [*bipole(18, 25), *bipole(-22, -35, sigma=2.0, apart=8), (40, -10, -600, 2)]


@pytest.mark.parametrize("rotation", [180, 90, -90, 180.013, 3.1, -37.5])
@pytest.mark.parametrize("b0", [7.0, -4.0])
def test_a_turned_header_means_the_same_places(rotation, b0):
    upright, turned = (find_regions(sun(*SPOTS, b0=b0, rotation=angle)) for angle in (0, rotation))
    assert len(upright) == len(turned) == 3
    assert np.allclose(positions(upright), [(18, 25), (-22, -35), (40, -10)], atol=0.3)
    assert np.allclose(positions(turned), positions(upright), atol=0.2)
    for a, b in zip(upright, turned, strict=True):
        assert b.unsigned_flux.value == pytest.approx(a.unsigned_flux.value, rel=0.02)
        assert b.area.value == pytest.approx(a.area.value, rel=0.05)


def test_half_a_turn_is_exact():
    image = sun(*SPOTS, noise=5)
    height, width = image.pixels.shape
    cards = {"CRPIX1": width + 1 - image.header["CRPIX1"], "CRPIX2": height + 1 - image.header["CRPIX2"]}
    header = {**image.header, **cards, "CROTA2": 180.0}
    turned = Image(np.ascontiguousarray(image.pixels[::-1, ::-1]), "sun.fits", image.time, header)
    for a, b in zip(find_regions(image), find_regions(turned), strict=True):
        a, b = a.to_dict(), b.to_dict()
        assert (width - 1 - a.pop("x"), height - 1 - a.pop("y")) == pytest.approx((b.pop("x"), b.pop("y")))
        assert a == pytest.approx(b, rel=1e-5)


@pytest.mark.parametrize("size", [200, 512, 1024, 1500])
def test_the_size_of_the_image_does_not_matter(size):
    small, large = find_regions(sun(*SPOTS)), find_regions(sun(*SPOTS, size=size))
    assert np.allclose(positions(small), positions(large), atol=0.2)
    for a, b in zip(small, large, strict=True):
        assert b.unsigned_flux.value == pytest.approx(a.unsigned_flux.value, rel=0.03)
        assert b.area.value == pytest.approx(a.area.value, rel=0.06)
        assert (b.x / size, b.y / size) == pytest.approx((a.x / 256, a.y / 256), abs=0.01)


def test_simulated_frames_of_two_sizes_have_the_same_regions(tmp_path):
    tables = []
    for size in (256, 1024):
        path = tmp_path / f"{size}.fits"
        write_fits(path, render(fh_regions(), "2014-05-01", size, seed=1), "2014-05-01")
        tables.append([r for r in find_regions(path) if r.unsigned_flux.value > 1e21 and abs(r.longitude.value) < 60])
    assert len(tables[0]) == len(tables[1]) > 2
    assert np.allclose(positions(tables[0]), positions(tables[1]), atol=1)
    for a, b in zip(*tables, strict=True):
        assert b.unsigned_flux.value == pytest.approx(a.unsigned_flux.value, rel=0.1)
        assert b.area.value == pytest.approx(a.area.value, rel=0.15)


def fh_regions():
    from fasthash.solar.active_regions import statistical_regions

    return statistical_regions("2014-05-01", 1, 1)


# ---- what is no region ---------------------------------------------------------------------------------------------


def test_the_quiet_sun_has_none(tmp_path):
    from fasthash.solar.active_regions import statistical_regions

    assert len(find_regions(sun())) == 0
    for seed in range(5):
        assert len(find_regions(sun(noise=10, seed=seed))) == 0
        image = render(statistical_regions("2009-01-01", 1, seed, activity=0), "2009-01-01", 256, seed)
        write_fits(tmp_path / f"{seed}.fits", image, "2009-01-01")
        assert len(find_regions(tmp_path / f"{seed}.fits")) == 0


def test_small_ones_are_left_out():
    image = sun((10, 10, 150, 0.5))
    assert len(find_regions(image)) == 0
    (region,) = find_regions(image, min_area=0)
    assert 0 < region.area.value < MIN_AREA


def test_nothing_is_found_next_to_the_limb():
    (region,) = find_regions(sun((0, 0, 1000, 3), (0, 82, 1000, 1), (85, 0, 1000, 1)))
    assert region.longitude.value == pytest.approx(0, abs=0.3)
    (region,) = find_regions(sun((0, 75, 1000, 3)))  # half of it lies beyond
    assert region.longitude.value < 75
    assert np.cos(np.radians(75)) == LEAST_MU


def test_missing_pixels_belong_to_no_region_and_make_none():
    image = sun((10, 20, 1500, 3), noise=5)
    (whole,) = find_regions(image)
    column, row = round(whole.x), round(whole.y)
    for part, share in ((np.s_[row - 40 : row + 40, column : column + 40], 0.5), (np.s_[row - 40 : row + 40, :], 0)):
        pixels = image.pixels.copy()
        pixels[part] = np.nan
        table = find_regions(Image(pixels, header=image.header, time=image.time))
        assert not table.labels[part].any()
        assert len(table) == (share > 0)
        for region in table:
            assert region.unsigned_flux.value == pytest.approx(share * whole.unsigned_flux.value, rel=0.1)
    noise = sun(noise=8)
    noise.pixels[::5, ::3] = np.nan
    noise.pixels[100:140, 60:200] = np.nan
    assert len(find_regions(noise)) == 0


def test_the_sky_does_not_count():
    image = sun(*SPOTS)
    sky = np.where(np.isnan(image.pixels), np.float32(3000), image.pixels)
    with_sky = find_regions(Image(sky, "sun.fits", image.time, image.header))
    assert with_sky.to_dict() == find_regions(image).to_dict()


# ---- how the Sun is seen -------------------------------------------------------------------------------------------


def test_the_surface_adds_up_and_every_place_is_seen_where_it_came_from():
    view = View(Disk(130.0, 120.0, 110.0, 25.0), 5.0, 0.0, np.radians(0.27))
    mu, place, size = view.surface((256, 256))
    inside = mu > 0.5
    assert np.allclose(np.linalg.norm(place[:, inside], axis=0), 1)
    # Where mu is 0.5, the angle at the Sun's centre is 60 degrees less the one at the observer.
    top = 1 - np.cos(np.radians(60 - 0.27 * np.sin(np.radians(60))))
    assert (size**2 / np.maximum(mu, 0.1))[inside].sum() == pytest.approx(2 * np.pi * RADIUS_CM**2 * top, rel=2e-3)
    rows, columns = np.nonzero(inside)
    assert np.allclose(view.to_pixel(place[:, inside]), (columns, rows), atol=1e-6)
    latitude, longitude = view.to_heliographic(direction(-30, 50, b0=5.0))
    assert (latitude, longitude) == pytest.approx((-30, 50))


@pytest.mark.parametrize(("unit", "arcseconds"), [("deg", 3600), ("arcmin", 60), ("rad", 206_264.806), ("arcsec", 1)])
def test_the_plate_scale_may_have_another_unit(unit, arcseconds):
    header = sun().header
    scales = {key: header[key] / arcseconds for key in ("CDELT1", "CDELT2")}
    disk, same = disk_from_header(header), disk_from_header({**header, **scales, "CUNIT1": unit, "CUNIT2": unit})
    assert (same.x, same.y, same.radius) == pytest.approx((disk.x, disk.y, disk.radius))


@pytest.mark.parametrize("rotation", [0.0, 180.0, 33.0])
def test_places_are_those_of_sunpy(rotation):
    sunpy_map = pytest.importorskip("sunpy.map", reason="needs the extra [solar]")
    image = sun(size=128, b0=-6.0, rotation=rotation)
    known = {
        "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec", "CUNIT2": "arcsec", "RSUN_REF": 6.96e8,
        "DSUN_OBS": 6.96e8 / np.sin(np.radians(0.2667)), "HGLN_OBS": 12.0, "DATE-OBS": "2014-05-01T00:00:00",
    }  # fmt: skip
    header = {**image.header, **known}
    view = view_of(Image(image.pixels, header=header))
    seen = sunpy_map.Map(image.pixels, {key.lower(): value for key, value in header.items()})
    columns, rows = np.array([40, 64, 90, 75]), np.array([50, 64, 80, 20])
    from astropy import units as u

    there = seen.pixel_to_world(columns * u.pix, rows * u.pix).heliographic_stonyhurst
    _, place, _ = view.surface((128, 128))
    latitude, longitude = view.to_heliographic(place[:, rows, columns])
    assert np.allclose(latitude, there.lat.deg, atol=0.02)
    assert np.allclose(longitude, (there.lon.deg + 180) % 360 - 180, atol=0.02)


def test_b0_comes_from_the_header_or_else_from_the_time():
    image = sun((20, 0, 1500, 3), b0=-4.03)  # the Earth's at that time
    header = {key: value for key, value in image.header.items() if key != "HGLT_OBS"}
    (region,) = find_regions(Image(image.pixels, time=image.time, header=header))
    assert region.latitude.value == pytest.approx(20, abs=0.3)
    (region,) = find_regions(Image(image.pixels, time=image.time, header={**header, "CRLT_OBS": 5.97}))
    assert region.latitude.value == pytest.approx(30, abs=0.3)
    with pytest.raises(fh.ReadError, match=r"image: neither its header .* nor a time tells B0"):
        find_regions(Image(image.pixels, header=header))


def test_a_map_of_sunpy_is_taken_too():
    image = sun(*SPOTS)
    meta = {key.lower(): value for key, value in image.header.items()}
    assert len(find_regions(SimpleNamespace(meta=meta, data=image.pixels, mask=None))) == 3


# ---- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"header": {}}, "sun.fits: no header that tells where the solar disk is"),
        ({"full_scale": 255.0}, "sun.fits: no header that tells where the solar disk is"),
        ({"header": {**sun(size=64).header, "RSUN_OBS": 100.0}}, "sun.fits: the solar disk is .* pixels in radius"),
        ({"header": {**sun().header, "CDELT1": 0.01}}, "sun.fits: the solar disk is .* pixels in radius"),
        ({"header": {**sun().header, "CRPIX1": 5000.0}}, "sun.fits: no valid pixel on the solar disk"),
        ({"header": {**sun().header, "BUNIT": "DN/s"}}, r"sun.fits: its pixels are in DN/s \(BUNIT\), expected gauss"),
        ({"header": {**sun().header, "HGLT_OBS": 120.0}}, "sun.fits: its header tells B0 = 120 degrees"),
        ({"header": {**sun().header, "RSUN_OBS": 20.0}}, "sun.fits: its header tells .* radius of 20 arcseconds"),
    ],
)
def test_an_image_without_what_is_needed_is_named(change, message):
    image = sun()
    known = {"source": image.pixels, "path": image.path, "time": image.time, "header": image.header}
    with pytest.raises(fh.ReadError, match=message):
        find_regions(Image(**{**known, **change}))


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "30", True, None])
def test_a_wrong_threshold_is_named(value):
    with pytest.raises(fh.ArgumentError, match=r"threshold: expected a number of at least 0\.001, got"):
        find_regions(sun(), threshold=value)


@pytest.mark.parametrize("value", [-1, float("nan"), "120", None])
def test_a_wrong_area_is_named(value):
    with pytest.raises(fh.ArgumentError, match="min_area: expected a number of at least 0, got"):
        find_regions(sun(), min_area=value)


# ---- pictures and the command --------------------------------------------------------------------------------------


def colours(path):
    from matplotlib.image import imread

    return imread(path)[..., :3]


def test_the_picture_shows_north_up_positive_red_negative_blue(tmp_path):
    """Whatever the rotation: a positive spot in the north-west, a negative one in the south-west."""
    for rotation in (0, 180, 33):
        image = sun((40, 40, 1500, 5), (-40, 40, -1500, 5), rotation=rotation)
        draw_regions(find_regions(image), tmp_path / "sun.png")
        picture = colours(tmp_path / "sun.png")
        red, blue = picture[..., 0] - picture[..., 2] > 0.3, picture[..., 2] - picture[..., 0] > 0.3
        height, width = red.shape
        for part, where in ((red, slice(0, height // 2)), (blue, slice(height // 2, int(0.9 * height)))):
            inside = np.zeros_like(part)
            inside[where, width // 2 :] = True
            bar = np.zeros_like(part)
            bar[int(0.9 * height) :] = True
            assert (part & inside).sum() > 500
            assert not (part & ~inside & ~bar).any()


@pytest.fixture
def frame(tmp_path):
    path = tmp_path / "frame.fits"
    write_fits(path, render(fh_regions(), "2014-05-01", 256, seed=1), "2014-05-01", 1)
    return path


def test_the_command_prints_a_table_and_draws(frame, capsys, tmp_path):
    status, out, _ = run(capsys, "regions", frame, "--picture", tmp_path / "regions.png")
    assert status == 0
    head, *rows = out.splitlines()
    assert head.split()[:3] == ["#", "latitude", "longitude"]
    table = find_regions(frame)
    assert len(rows) == len(table) > 3
    for row, region in zip(rows, table, strict=True):
        number, latitude, longitude, area, flux, signed, peak, touch = row.split()
        assert int(number) == region.number
        assert (float(latitude), float(longitude)) == pytest.approx(positions([region])[0], abs=0.051)
        assert float(area) == pytest.approx(region.area.value, abs=0.51)
        assert float(flux) == pytest.approx(region.unsigned_flux.value, rel=0.01)
        assert float(signed) == pytest.approx(region.signed_flux.value, rel=0.01)
        assert float(peak) == pytest.approx(region.peak_field.value, abs=0.51)
        assert touch == ("yes" if region.polarities_touch else "no")
    assert (tmp_path / "regions.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_as_json_is_one_object_and_nothing_else(frame, capsys):
    status, out, _ = run(capsys, "regions", frame, "--json")
    assert status == 0
    answer = json.loads(out)
    assert set(answer) == {"image", "time", "regions"}
    assert (answer["image"], answer["time"]) == (str(frame), "2014-05-01T00:00:00")
    assert answer["regions"] == find_regions(frame).to_dict()["regions"]
    for region in answer["regions"]:
        assert region["unsigned_flux_mx"] == pytest.approx(region["positive_flux_mx"] - region["negative_flux_mx"])
        assert region["leading_share"] + region["following_share"] == pytest.approx(1)
        assert region["area_mm2"] == pytest.approx(region["area_msh"] * 3.0437, rel=1e-3)


def test_no_region_is_an_answer(capsys, tmp_path):
    path = tmp_path / "quiet.fits"
    write_fits(path, sun(noise=5).pixels, "2009-01-01")
    status, out, _ = run(capsys, "regions", path, "--picture", tmp_path / "quiet.png")
    assert (status, out) == (0, f"{path}: no magnetic regions\n")
    assert (tmp_path / "quiet.png").exists()
    status, out, _ = run(capsys, "regions", path, "--json")
    assert json.loads(out)["regions"] == []


def test_what_cannot_be_used_is_one_line(frame, capsys, tmp_path):
    np.save(tmp_path / "array.npy", np.zeros((256, 256), np.float32))
    (tmp_path / "broken.fits").write_bytes(frame.read_bytes()[:5000])
    for arguments, name in [
        ([tmp_path / "array.npy"], "array.npy"),
        ([tmp_path / "broken.fits"], "broken.fits"),
        ([tmp_path / "missing.fits"], "missing.fits"),
        ([tmp_path], str(tmp_path)),
        ([frame, "--picture", tmp_path / "regions.jpg"], "regions.jpg"),
        ([frame, "--picture", tmp_path / "nowhere" / "regions.png"], "nowhere"),
        ([frame, "--max-pixels", "100"], "frame.fits"),
    ]:
        status, out, err = run(capsys, "regions", *arguments)
        assert (status, out) == (1, "")
        assert err.startswith("error: ")
        assert name in err
        assert err.count("\n") == 1
    assert not list(tmp_path.glob("*.png"))


# ---- real magnetograms ---------------------------------------------------------------------------------------------

# Sunspot groups of the USAF/NOAA records of those days (Stonyhurst latitude and longitude at midnight), and the hours
# since midnight, in which the Sun turned on.
GROUPS = {
    "hmi.M_720s.20111217_060000_TAI.fits": (6, [(-18, 37), (8, 43), (12, -15), (-17, 9)]),
    "hmi.M_720s.20160707_010000_TAI.fits": (1, [(-8, -42)]),
    "mdi.fd_M_96m_lev182.20110401_000000_TAI.data.fits": (0, [(-16, 51), (-17, 22), (24, 13), (-27, 8), (15, -14)]),
}


@pytest.mark.parametrize("name", GROUPS)
def test_every_group_of_sunspots_lies_in_a_region_of_its_own(real_solar, name):
    table = find_regions(real_solar / name)
    hours, groups = GROUPS[name]
    view = view_of(table.image)
    owners = []
    for latitude, longitude in groups:
        x, y = view.to_pixel(direction(latitude, longitude + hours * 13.2 / 24, view.b0))
        row, column = int((y + 0.5) // table.factor), int((x + 0.5) // table.factor)
        near = table.labels[row - 4 : row + 5, column - 4 : column + 5]  # 2 degrees: records give whole ones
        assert near.any()
        owners.append(np.bincount(near[near > 0]).argmax())
    assert len(set(owners)) == len(groups)
    assert len(groups) <= len(table) <= 25
    assert all(1e20 < region.unsigned_flux.value < 1e23 for region in table)
