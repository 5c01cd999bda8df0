"""The simulated Sun: where things are, how they move, and what its files say."""

import subprocess
import sys
from datetime import datetime

import numpy as np
import pytest

from fasthash.errors import ArgumentError, FastHashError, ReadError
from fasthash.io import read_image
from fasthash.solar import simulator
from fasthash.solar.active_regions import (
    _KNOT,
    ActiveRegions,
    hale_polarity,
    read_active_regions,
    statistical_regions,
)
from fasthash.solar.ephemeris import (
    SOLAR_RADIUS,
    carrington_drift,
    instant,
    meridional_drift,
    observer,
    to_days,
)
from fasthash.solar.field_map import field_map
from fasthash.solar.magnetogram import disk_from_header
from fasthash.solar.simulator import FieldModel, file_name, render, simulate, write_fits

START = "2014-04-01T00:00"
DAILY = """\
2014 4 1.000   12020 BG   Eki  300   12  200 0.500  90.0  54.0 -15.0 -30.0
2014 4 1.000   12021 A    Hsx   60    1   40 0.300  20.0  94.0  12.0  10.0
2014 4 2.000   12020 BG   Ekc  420   15  300 0.350  90.0  54.0 -15.0 -17.0
2014 4 3.000   12020      Ekc  360   15  300 0.200  90.0  55.0 -15.0  -3.0
"""
COLUMNS = (
    "CR,Label,Lat(pos),Lon(pos),Lat(neg),Lon(neg),Lat(whole),Lon(whole),"
    '"Area(pos, μHem)","Area(neg, μHem)","Flux(pos, Mx)","Flux(neg, Mx)",Bmax(G),cm_time_utc\n'
)
BIPOLES = (
    COLUMNS
    + "2148,1,-14.0,203.0,-16.0,197.0,-15.0,200.0,900,800,8e21,-7e21,2100.5,2014-04-03T07:15:00\n"
    + "2148,2,12.0,1.0,10.0,359.0,11.0,0.0,500,400,4e21,-4e21,1800.5,2014-04-05T00:00:00\n"
)


def days(text):
    return to_days(instant(text))


def spot_at(latitude, longitude, when, polarity=1.0, flux=2e22):
    """One steady region around a moment."""
    knots = np.array([(0, when - 30, 300, flux), (0, when + 30, 300, flux)], dtype=_KNOT)
    one = [np.array([v], dtype=float) for v in (latitude, longitude, when, 5.0, 0.0, polarity, when - 30)]
    return ActiveRegions(np.array([7]), *one, knots=knots)


@pytest.fixture(scope="module")
def regions():
    return statistical_regions(START, 10, seed=3)


QUIET = FieldModel(network_flux=1e-30)  # no network: only regions are drawn


def centre(image, time):
    """Heliographic latitude and Carrington longitude of the flux-weighted middle of an image."""
    seen, size = observer(days(time)), len(image)
    weight = np.abs(np.nan_to_num(image))
    weight[weight < 0.2 * weight.max()] = 0
    radius = seen.angular_radius / (simulator.FIELD_OF_VIEW / size)
    row, column = np.indices(image.shape)
    x = (np.sum(weight * column) / weight.sum() - (size - 1) / 2) / radius
    y = (np.sum(weight * row) / weight.sum() - (size - 1) / 2) / radius
    z, b0 = np.sqrt(1 - x * x - y * y), np.radians(seen.b0)
    latitude = np.arcsin(y * np.cos(b0) + z * np.sin(b0))
    return np.degrees(latitude), (np.degrees(np.arctan2(x, z * np.cos(b0) - y * np.sin(b0))) + seen.l0) % 360


# frames


def test_frame_depends_on_its_arguments_alone(regions):
    alone = render(regions, "2014-04-05T12:00", 64, seed=3)
    simulator._elements.cache_clear()
    for hour in range(0, 13, 3):
        again = render(statistical_regions("2014-03-30", 25, seed=3), f"2014-04-05T{hour:02d}:00Z", 64, seed=3)
    np.testing.assert_array_equal(again, alone)
    assert not np.array_equal(render(regions, "2014-04-05T12:00", 64, seed=4), alone, equal_nan=True)


def test_disk_geometry(regions):
    image = render(regions, START, 256)
    assert image.dtype == np.float32
    assert image.shape == (256, 256)
    row, column = np.indices(image.shape) - 127.5
    radius = observer(days(START)).angular_radius / (simulator.FIELD_OF_VIEW / 256)
    np.testing.assert_array_equal(np.isfinite(image), np.hypot(row, column) <= radius)


def test_frames_close_in_time_are_alike(regions):
    images = [
        render(regions, t, 128, noise=0) for t in ("2014-04-04T00:00", "2014-04-04T00:30", "2014-04-05", "2014-04-09")
    ]
    disk = np.all(np.isfinite(images), axis=0)
    soon, day, later = (np.corrcoef(images[0][disk], image[disk])[0, 1] for image in images[1:])
    assert soon > 0.85
    assert max(abs(day), abs(later)) < 0.3  # a day turns the Sun by 13 degrees: its regions are elsewhere


def test_noise_is_what_was_asked_for():
    nothing = statistical_regions("2008-12-20", 1, activity=0)
    assert len(nothing) == 0
    image = render(nothing, "2008-12-20", 128, noise=8.0, model=QUIET)
    row, column = np.indices(image.shape) - 63.5
    away = np.hypot(row, column) / (observer(days("2008-12-20")).angular_radius / (simulator.FIELD_OF_VIEW / 128))
    assert np.std(image[away < 0.3]) == pytest.approx(8.0, rel=0.06)
    assert np.std(image[(away > 0.95) & (away < 1)]) == pytest.approx(8.0 * 1.4, rel=0.06)  # it grows to the limb
    assert np.nanmax(np.abs(render(nothing, "2008-12-20", 128, noise=0, model=QUIET))) < 1e-6


def drawn_by_numpy(rows, days, size, turn):
    """What `_drawing.draw` does for steady concentrations, as plain sums over all pixels."""
    seen, image = observer(days), np.zeros((size, size))
    pixel, distance = np.radians(simulator.FIELD_OF_VIEW / 3600) / size, seen.distance / SOLAR_RADIUS
    l0, b0, turn = np.radians([seen.l0, seen.b0, turn])
    for x, y, z, _, _, flux, width in rows.T.astype(float):
        toward, west = x * np.cos(l0) + y * np.sin(l0), y * np.cos(l0) - x * np.sin(l0)
        north, near = z * np.cos(b0) - toward * np.sin(b0), z * np.sin(b0) + toward * np.cos(b0)
        if near < 1 / distance + 0.02:
            continue
        sight = np.array([-west, -north, distance - near])
        mu = sight @ [west, north, near] / np.linalg.norm(sight)
        scale = 1 / (sight[2] * pixel)
        right, up = west * np.cos(turn) + north * np.sin(turn), north * np.cos(turn) - west * np.sin(turn)
        across, along = np.hypot(width * scale, 0.5), np.hypot(width * scale * mu, 0.5)
        row, column = np.indices(image.shape) - (size - 1) / 2 - scale * np.array([up, right])[:, None, None]
        out = (column * right + row * up) / np.hypot(right, up)
        beside2 = column**2 + row**2 - out**2
        bell = np.exp(-0.5 * (out**2 / along**2 + beside2 / across**2))
        image += flux * (mu * scale) ** 2 / (2 * np.pi * across * along) * bell
    return image


@pytest.mark.parametrize(("size", "turn"), [(16, 0.0), (65, 30.0), (200, -170.0)])
def test_drawing_agrees_with_numpy(size, turn):
    rng, when = np.random.default_rng(5), days(START)
    place = np.degrees(np.arcsin(rng.uniform(-1, 1, 60))), rng.uniform(0, 360, 60)
    parts = simulator._Concentrations.at(*place, rng.normal(size=60) * 1e21, np.full(60, 500.0))
    image, expected = simulator._project([parts], when, size, turn), drawn_by_numpy(parts.field, when, size, turn)
    strongest = np.abs(expected).max()
    assert strongest > 5
    np.testing.assert_allclose(image, expected, atol=0.05 * strongest)  # it is cut off at 2.5 sigmas
    assert np.abs(image - expected).mean() < 0.03 * np.abs(expected).mean()


def test_elements_come_and_go_and_keep_their_flux_on_average():
    when = days(START)
    middle = np.full(200, 0.0), np.full(200, observer(when).l0)
    births = when + np.linspace(-2.5, 0.5, 200)
    parts = simulator._Concentrations.at(*middle, np.full(200, 1e19), np.full(200, 100.0), births, when)
    first, last = parts.live(when)
    born = np.sort(births)[first:last]
    assert len(born) == np.count_nonzero((births < when) & (births > when - simulator.ELEMENT_LIFE))
    total = [simulator._project([parts], t, 64, 0.0).sum() for t in (when - 0.25, when)]
    steady = simulator._Concentrations.at(*(m[:133] for m in middle), np.full(133, 1e19), np.full(133, 100.0))
    assert total == pytest.approx([simulator._project([steady], when, 64, 0.0).sum()] * 2, rel=0.03)


@pytest.mark.parametrize("longitude", [0.0, 55.0])
def test_flux_of_one_concentration_is_its_projection_at_every_size(longitude):
    when = days(START)
    seen = observer(when)
    place = (np.array([seen.b0]), np.array([seen.l0 + longitude]))
    one = simulator._Concentrations.at(*place, np.array([1e22]), np.array([200.0]))
    for size in (64, 128, 256, 512, 1024):
        image = simulator._project([one], when, size, 0.0)
        pixel_cm = np.radians(simulator.FIELD_OF_VIEW / size / 3600) * (seen.distance - SOLAR_RADIUS) * 100
        mu2 = np.cos(np.radians(longitude)) ** 2
        assert image.sum(dtype=float) * pixel_cm**2 == pytest.approx(1e22 * mu2, rel=0.06)


def test_flux_does_not_depend_on_image_size():
    when = days(START)
    one = spot_at(0.0, observer(when).l0, when)
    images = [render(one, START, n, noise=0, model=QUIET) for n in (256, 512, 1024)]
    flux = [np.nansum(np.abs(image), dtype=float) / image.size for image in images]
    assert flux[0] < flux[1] < flux[2]  # opposite elements cancel where they share a pixel
    assert flux[0] > 0.9 * flux[2]


def test_default_noise_falls_with_averaging_but_not_as_fast_as_that_of_photons():
    nothing = statistical_regions("2008-12-20", 1, activity=0)
    spread = {}
    for size in (64, 256):
        image = render(nothing, "2008-12-20", size, model=QUIET)
        middle = slice(3 * size // 8, 5 * size // 8)
        spread[size] = image[middle, middle].std()
    assert spread[64] < spread[256]
    assert spread[64] > spread[256] / 4
    assert spread[256] == pytest.approx(simulator.instrument_noise(256), rel=0.1)


@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
def test_rotation_by_quarters_turns_the_image(regions, quarters):
    upright = render(regions, START, 128, noise=0)
    turned = render(regions, START, 128, noise=0, rotation=90.0 * quarters)
    # North goes from the last row to the last column, as CROTA2 = 90 says.
    np.testing.assert_allclose(turned, np.rot90(upright, quarters), atol=0.01)


def test_rotation_by_any_angle_is_what_the_header_says(tmp_path):
    when = days(START)
    one = spot_at(30.0, observer(when).l0 + 20, when)
    for angle in (0.0, 37.0, -120.0, 180.0):
        image = render(one, START, 256, noise=0, model=QUIET, rotation=angle)
        write_fits(tmp_path / "turned.fits", image, START, rotation=angle)
        frame = read_image(tmp_path / "turned.fits")
        disk = disk_from_header(frame.header)
        assert disk.rotation == angle
        cells = np.abs(field_map(frame.pixels, disk, 64))
        place = np.array(np.nonzero(cells)) @ cells[np.nonzero(cells)] / cells.sum()
        if angle == 0:
            expected = place
        np.testing.assert_allclose(place, expected, atol=0.3)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.7])
def test_missing_pixels_are_the_stated_share_in_blocks(regions, share):
    whole, holed = render(regions, START, 128), render(regions, START, 128, missing=share)
    lost = np.isfinite(whole) & np.isnan(holed)
    assert lost.sum() == round(share * np.isfinite(whole).sum())
    np.testing.assert_array_equal(holed[np.isfinite(holed)], whole[np.isfinite(holed)])
    # In blocks: a lost pixel's neighbours to the left and right are mostly lost as well.
    assert lost[:, 1:-1][lost[:, :-2] & lost[:, 2:]].mean() > 0.9
    assert (lost[:, :-1] & lost[:, 1:]).sum() > 0.75 * lost.sum()


def test_field_strength_resembles_the_sun(regions):
    image = render(regions, START, 256)
    field = np.abs(image[np.isfinite(image)])
    assert 0.0005 < np.mean(field > 125) < 0.03
    assert np.mean(field > 500) < 0.003
    assert 1000 < np.nanmax(np.abs(render(regions, START, 1024))) <= simulator.SATURATION + 60


# place and motion


@pytest.mark.parametrize(("latitude", "b0_day"), [(0.0, "2014-06-07"), (25.0, "2014-03-07"), (-30.0, "2014-09-08")])
def test_region_is_where_it_should_be(latitude, b0_day):
    when = days(b0_day)
    longitude = (observer(when).l0 + 20) % 360
    image = render(spot_at(latitude, longitude, when, flux=1e22), b0_day, 512, noise=0, model=QUIET)
    found = centre(image, b0_day)
    assert found[0] == pytest.approx(latitude, abs=1.5)
    assert abs((found[1] - longitude + 180) % 360 - 180) < 2.5


@pytest.mark.parametrize("latitude", [0.0, 40.0, -60.0])
def test_differential_rotation(latitude):
    when = days(START)
    one = spot_at(latitude, observer(when).l0, when)
    moved = []
    for t in (when, when + 1):
        x, y = simulator._spots(one, t, 0, FieldModel()).field[:2, 0]
        moved.append(np.degrees(np.arctan2(y, x)) - observer(t).l0)
    step = (moved[1] - moved[0] + 180) % 360 - 180
    s = np.sin(np.radians(latitude)) ** 2
    sidereal = np.degrees((2.894 - 0.428 * s - 0.370 * s * s) * 1e-6 * 86400)
    assert step == pytest.approx(sidereal - 0.986, abs=0.08)  # the Earth follows by 0.986 degrees a day


def test_equator_runs_ahead_of_the_poles():
    drift = {}
    for latitude in (0.0, 60.0):
        when = days("2014-09-08")
        one = spot_at(latitude, (observer(when).l0 - 7) % 360, when, flux=1e21)
        first, second = (centre(render(one, t, 512, noise=0, model=QUIET), t)[1] for t in ("2014-09-08", "2014-09-09"))
        drift[latitude] = (second - first + 180) % 360 - 180
    assert drift[0.0] == pytest.approx(carrington_drift(0.0), abs=0.6)
    assert drift[60.0] < drift[0.0] - 1


def test_meridional_flow_is_poleward_and_fastest_at_middle_latitudes():
    latitude = np.array([-75.0, -40.0, -10.0, 0.0, 10.0, 40.0, 75.0])
    drift = meridional_drift(latitude)
    assert (drift * np.sign(latitude) >= 0).all()
    np.testing.assert_allclose(drift, -drift[::-1])
    assert np.abs(drift).argmax() in (1, 5)
    metres = np.radians(drift[5]) * 6.96e8 / 86400
    assert 12 < metres < 14.5


@pytest.mark.parametrize("latitude", [25.0, -25.0])
def test_decayed_flux_drifts_poleward_and_spots_do_not(latitude):
    when = days(START)
    one = spot_at(latitude, observer(when).l0, when)
    model = FieldModel(plage_flux=1e18)  # many elements: their mean place is sure
    north, spots = [], []
    for t in (when, when + 25):
        rng = np.random.default_rng(1)
        places, _, flux = simulator._plage(one, 0, 2e22, 0.0, t, rng, model)
        north.append(np.average(places, weights=np.abs(flux)))
        spots.append(np.degrees(np.arcsin(simulator._spots(one, t, 0, model).field[2])))
    moved = (north[1] - north[0]) * np.sign(latitude)
    assert moved == pytest.approx(abs(meridional_drift(latitude)) * 25, rel=0.15)
    np.testing.assert_allclose(spots[0], spots[1], atol=1e-4)


@pytest.mark.parametrize(("start", "leading_in_the_north"), [("2003-01-01", 1), (START, -1), ("2024-06-01", 1)])
def test_hales_law_flips_between_hemispheres_and_cycles(start, leading_in_the_north):
    table = statistical_regions(start, 300, seed=1)
    north = table.latitude > 0
    assert np.mean(table.polarity[north]) * leading_in_the_north > 0.7
    assert np.mean(table.polarity[~north]) * leading_in_the_north < -0.7


def test_joys_law_tilts_more_at_higher_latitudes():
    tables = [statistical_regions(start, 1000, seed=1) for start in ("2010-06-01", START)]
    latitude, tilt = (np.concatenate([getattr(t, name) for t in tables]) for name in ("latitude", "tilt"))
    low, high = (tilt[inside].mean() for inside in (np.abs(latitude) < 12, np.abs(latitude) > 22))
    assert 0 < low < high
    slope = np.polyfit(np.abs(latitude), tilt, 1)[0]
    assert slope == pytest.approx(0.5, abs=0.2)
    assert hale_polarity(10, days("2014-01-01")) == -1.0
    assert hale_polarity(10, days("2003-01-01")) == 1.0
    assert hale_polarity(10, days("2025-01-01")) == 1.0


def test_leading_polarity_lies_west_and_equatorward():
    when = days("2014-06-07")
    for latitude, polarity in ((20.0, -1.0), (-20.0, 1.0)):
        one = spot_at(latitude, observer(when).l0, when, polarity)
        object.__setattr__(one, "tilt", np.array([30.0]))
        image = np.nan_to_num(render(one, "2014-06-07", 512, noise=0, model=QUIET)) * polarity
        leading, following = (centre(np.maximum(side, 0), "2014-06-07") for side in (image, -image))
        assert (leading[1] - following[1] + 180) % 360 - 180 > 1
        assert abs(leading[0]) < abs(following[0])


def test_regions_emerge_grow_and_decay():
    table = statistical_regions(START, 60, seed=2)
    for i in range(0, len(table), 7):
        knots = table.knots[table.knots["region"] == i]
        area, flux = knots["area"], knots["flux"]
        top = area.argmax()
        assert area[0] == flux[0] == area[-1] == flux[-1] == 0
        assert (np.diff(area[: top + 1]) > 0).all()
        assert (np.diff(area[top:]) <= 0).all()
        assert knots["time"][top] - knots["time"][0] < knots["time"][-1] - knots["time"][top]  # it decays more slowly
        assert flux[np.flatnonzero(area)[-1] + 1] > 0  # plage outlives the spots


def test_polarities_of_a_young_region_move_apart():
    when = days(START)
    table = spot_at(10.0, 100.0, when)
    born = table.birth[0]

    def width(t):
        field = simulator._spots(table, t, 0, FieldModel()).field.astype(float)
        longitude = np.degrees(np.arctan2(field[1], field[0]))
        leading, following = (np.average(longitude[s], weights=field[5, s]) for s in (field[5] > 0, field[5] < 0))
        return leading - following

    assert 0 < width(born + 0.1) < width(born + 1.5) < width(born + 4)
    assert width(born + 4) == pytest.approx(width(born + 20), abs=0.3)  # the rotation shears it a little


def test_a_third_of_the_regions_stand_in_nests():
    table = statistical_regions(START, 600, seed=1)
    block = table.key // 1000

    def neighbours(longitude):
        apart = np.abs((longitude[:, None] - longitude + 180) % 360 - 180)
        close = (apart < 5) & (np.abs(table.latitude[:, None] - table.latitude) < 5) & (block[:, None] == block)
        return (close.sum(axis=1) > 1).mean()

    by_chance = neighbours(np.random.default_rng(0).uniform(0, 360, len(table)))
    assert neighbours(table.longitude) > by_chance + 0.25


def test_cycle_makes_the_butterfly():
    rising, falling = statistical_regions("2011-02-01", 300), statistical_regions("2016-08-01", 300)
    assert np.mean(np.abs(rising.latitude)) > 17
    assert np.mean(np.abs(falling.latitude)) < 13
    assert len(statistical_regions("2014-02-01", 300)) > 2 * len(falling)


# the ephemeris


def test_ephemeris_agrees_with_sunpy():
    sun = pytest.importorskip("sunpy.coordinates.sun", reason="needs the extra [solar]")
    for text in ("1962-02-03T04:00", "1989-07-01", "2011-12-17T06:00", "2024-10-10", "2025-11-05"):
        seen = observer(days(text))
        assert seen.b0 == pytest.approx(sun.B0(text).deg, abs=0.05)
        assert abs((seen.l0 - sun.L0(text).deg + 180) % 360 - 180) < 0.15
        assert seen.distance == pytest.approx(sun.earth_distance(text).to_value("m"), rel=2e-4)


@pytest.mark.parametrize(
    "time", ["2014-04-01T02:00+02:00", "2014-04-01T00:00Z", np.datetime64("2014-04-01"), datetime(2014, 4, 1)]
)
def test_times_are_utc(time):
    assert instant(time) == datetime(2014, 4, 1)


# files


def test_file_name_and_leap_seconds():
    assert file_name("2014-01-01") == "hmi.sim_720s.20140101_000035_TAI.fits"
    assert file_name("2016-12-31T23:59:30") == "hmi.sim_720s.20170101_000006_TAI.fits"
    assert file_name("2017-01-01") == "hmi.sim_720s.20170101_000037_TAI.fits"


def test_fits_says_what_it_is(tmp_path, regions):
    fits = pytest.importorskip("astropy.io.fits")
    image = render(regions, START, 64, seed=3)
    write_fits(tmp_path / "one.fits", image, START, seed=3)
    with fits.open(tmp_path / "one.fits") as file:
        file.verify("exception")
        header, data = file[0].header, file[0].data
    assert header["SIMULATE"] is True
    assert header["SIMSEED"] == 3
    assert "SIMULATED" in str(header["COMMENT"])
    assert header["T_REC"] == "2014.04.01_00:00:35.000_TAI"
    assert header["RSUN_OBS"] / header["CDELT1"] == pytest.approx(np.sqrt(np.isfinite(data).sum() / np.pi), rel=0.01)
    np.testing.assert_array_equal(np.isnan(data), np.isnan(image))
    assert np.nanmax(np.abs(data - image)) < 0.051


def test_sunpy_opens_it_as_hmi(tmp_path, regions):
    sunpy_map = pytest.importorskip("sunpy.map", reason="needs the extra [solar]", exc_type=ImportError)
    u = pytest.importorskip("astropy.units")
    (path,) = simulate(tmp_path, "2016-12-31T18:00", 0.25, 720, 64, regions)
    one = sunpy_map.Map(path)
    assert type(one).__name__ == "HMIMap"
    assert one.date.utc.isot == "2016-12-31T18:00:00.000"
    assert abs((one.reference_date - one.date).to_value(u.s)) < 0.01
    sun = pytest.importorskip("sunpy.coordinates.sun")
    seen = one.observer_coordinate
    assert seen.lat.deg == pytest.approx(sun.B0(one.date).deg, abs=0.05)
    assert seen.lon.deg == pytest.approx(0, abs=0.1)
    assert one.carrington_longitude.deg == pytest.approx(sun.L0(one.date).deg, abs=0.15)
    assert one.rsun_obs.to_value(u.arcsec) == pytest.approx(sun.angular_radius(one.date).to_value(u.arcsec), abs=0.6)
    assert one.coordinate_frame.name == "helioprojective"
    middle = one.world_to_pixel(one.center)
    assert one.center.Tx.to_value(u.arcsec) == pytest.approx(0, abs=1e-6)
    assert middle.x.value == pytest.approx(31.5)


@pytest.mark.parametrize("rotation", [0.0, 180.0, 25.0])
def test_sunpy_finds_a_region_at_its_heliographic_place(tmp_path, rotation):
    sunpy_map = pytest.importorskip("sunpy.map", reason="needs the extra [solar]", exc_type=ImportError)
    u = pytest.importorskip("astropy.units")
    coordinates = pytest.importorskip("astropy.coordinates")
    frames = pytest.importorskip("sunpy.coordinates.frames")
    when = days("2014-09-08")
    one = spot_at(-20.0, observer(when).l0 + 35, when, flux=1e22)
    (path,) = simulate(tmp_path, "2014-09-08", 0.1, 720, 256, one, rotation=rotation)
    sun = sunpy_map.Map(path)
    strong = np.where(np.nan_to_num(np.abs(sun.data)) > 150, np.abs(sun.data), 0)
    row, column = (np.average(axis, weights=strong) for axis in np.indices(strong.shape))
    found = sun.pixel_to_world(column * u.pix, row * u.pix).transform_to(frames.HeliographicStonyhurst)
    place = coordinates.SkyCoord(35 * u.deg, -20 * u.deg, frame=found.frame.replicate_without_data())
    assert found.separation(place).deg < 2.5


def test_simulate_is_repeatable_and_sorted(tmp_path):
    seen = []
    first = simulate(tmp_path / "a", START, 1, 360, 32, seed=5, progress=lambda *step: seen.append(step))
    other = simulate(tmp_path / "b", "2014-04-01T06:00", 0.5, 180, 32, seed=5)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [p.name for p in first] == sorted(p.name for p in first)
    assert first[1].read_bytes() == other[0].read_bytes()
    assert first[2].read_bytes() == other[2].read_bytes()
    assert sorted((tmp_path / "a").iterdir()) == first


def test_the_next_process_needs_neither_compiler_nor_fits_library(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    simulator._draw.cache_clear()
    simulate(tmp_path, START, 1, 1440, 16)  # the kernel is kept from here on
    code = (
        "import sys\n"
        "from fasthash.solar.simulator import simulate\n"
        f"simulate({str(tmp_path)!r}, '2014-04-02', 1, 1440, 16)\n"
        "print([name for name in ('numba', 'astropy') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("days", {"days": 0}),
        ("days", {"days": float("nan")}),
        ("days", {"days": "ten"}),
        ("days", {"days": 40_000}),
        ("cadence_minutes", {"cadence_minutes": -5}),
        ("cadence_minutes", {"cadence_minutes": 0.001}),
        ("size", {"size": 15}),
        ("size", {"size": 64.0}),
        ("seed", {"seed": 1.5}),
        ("seed", {"seed": -1}),
        ("start", {"start": "yesterday"}),
        ("start", {"start": "1959-12-31"}),
        ("start", {"start": "2101-01-01"}),
        ("rotation", {"rotation": float("nan")}),
        ("rotation", {"rotation": 361}),
        ("rotation", {"rotation": "up"}),
        ("missing", {"missing": -0.1}),
        ("missing", {"missing": 0.95}),
        ("missing", {"missing": float("nan")}),
    ],
)
def test_bad_arguments_are_named(tmp_path, name, change):
    arguments = {"start": START, "days": 1, "cadence_minutes": 60, "size": 32, "seed": 0} | change
    with pytest.raises(ArgumentError, match=f"^{name}:"):
        simulate(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_write_fits_refuses_what_is_not_a_frame(tmp_path):
    with pytest.raises(ArgumentError, match=r"^image:"):
        write_fits(tmp_path / "x.fits", np.zeros((4, 5), np.float32), START)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(FastHashError, match="taken"):
        simulate(tmp_path / "taken", START, 1, 720, 16)


# tables of real regions


def test_daily_groups(tmp_path):
    path = tmp_path / "groups.txt"
    path.write_text(DAILY)
    table = read_active_regions(path)
    assert table.key.tolist() == [12020, 12021]
    assert table.latitude.tolist() == [-15.0, 12.0]
    assert table.longitude[0] == pytest.approx(54.33, abs=0.01)
    assert table.polarity.tolist() == [1.0, -1.0]
    index, area, _ = table.at(days("2014-04-01T12:00"))
    assert area[index.tolist().index(0)] == pytest.approx(360)  # half-way between 300 and 420
    _, area, flux = table.at(days("2014-04-20"))
    assert area.max() == 0.0
    assert flux.max() > 0  # the spots are gone, the plage is not
    assert len(table.at(days("2014-09-01"))[0]) == 0
    assert np.nanmax(np.abs(render(table, "2014-04-02", 128))) > 300


def test_table_of_bipoles(tmp_path):
    path = tmp_path / "bipoles.csv"
    path.write_text(BIPOLES, encoding="utf-8")
    table = read_active_regions(path)
    assert table.latitude.tolist() == [-15.0, 11.0]
    assert table.polarity.tolist() == [1.0, 1.0]
    assert table.separation[0] == pytest.approx(np.hypot(6 * np.cos(np.radians(15)), 2))
    assert table.separation[1] == pytest.approx(2.8, abs=0.1)  # across the meridian of 0 degrees
    assert table.tilt[0] > 0 > table.tilt[1]
    _, _, flux = table.at(days("2014-04-03T07:14"))
    assert flux[0] == pytest.approx(1.5e22, rel=0.02)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (1, "this is no table\n"),
        (1, ""),
        (2, DAILY.splitlines()[0] + "\n2014 4 2.000   12020 BG   Ekc  420\n"),
        (3, "\n" + DAILY.splitlines()[0] + "\n" + DAILY.splitlines()[1].replace("12.0 ", "99.0 ")),
        (5, DAILY + "201413 4.000   12020 BG   Ekc  360   15  300 0.200  90.0 201.0 -15.0  -4.0\n"),
        (5, DAILY + "2014 4 4.000   12020 BG   Ekc  nan   15  300 0.200  90.0 201.0 -15.0  -4.0\n"),
        (1, DAILY.replace("12020", "-2020")),
        (1, COLUMNS),
        (3, BIPOLES.replace("2148,2", "2148,1e30")),
        (3, BIPOLES.replace("359.0", "three")),
        (3, BIPOLES.replace("2014-04-05T00:00:00", "soon")),
        (2, BIPOLES.replace(",cm_time_utc", ",when")),
        (3, COLUMNS + BIPOLES.splitlines()[1] + "\n2148,3,1.0\n"),
    ],
)
def test_malformed_tables_name_file_and_line(tmp_path, line, text):
    path = tmp_path / "bad_table"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ReadError, match=rf"bad_table: line {line}: "):
        read_active_regions(path)


def test_tables_that_cannot_be_read(tmp_path):
    with pytest.raises(ReadError, match="missing"):
        read_active_regions(tmp_path / "missing.txt")
    (tmp_path / "picture").write_bytes(bytes(range(128, 256)))
    with pytest.raises(ReadError, match="picture"):
        read_active_regions(tmp_path / "picture")
