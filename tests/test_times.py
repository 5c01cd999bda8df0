"""Times of headers, of names and of users. Oracle of leap seconds: astropy."""

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasthash.errors import ArgumentError
from fasthash.times import format_time, parse_span, parse_time, time_from_header, time_from_name


def ms(text):
    return np.datetime64(text, "ms")


@pytest.mark.parametrize(
    ("cards", "utc"),
    [
        ({"T_REC": "2011.12.17_06:00:00_TAI"}, "2011-12-17T05:59:26"),
        ({"T_OBS": "2011.12.17_05:59:34.50_TAI"}, "2011-12-17T05:59:00.5"),
        ({"T_REC": "2011.12.17_06:00:00"}, "2011-12-17T05:59:26"),
        ({"T_REC": "2011-12-17T06:00:00Z"}, "2011-12-17T06:00:00"),
        ({"T_REC": "2011.12.17_06:00:00_UTC"}, "2011-12-17T06:00:00"),
        ({"T_REC": "-4712.01.01_11:59:28_TAI", "DATE-OBS": "2011-12-17"}, "2011-12-17T00:00:00"),
        ({"T_REC": "", "T_OBS": None, "DATE-OBS": "2011-12-17T05:59:26.90"}, "2011-12-17T05:59:26.9"),
        ({"T_REC": "2011.12.17_06:00:00_TAI", "DATE-OBS": "1999-01-01"}, "2011-12-17T05:59:26"),
        ({"DATE-OBS": "2011-12-17T05:59:26"}, "2011-12-17T05:59:26"),
        ({"DATE-OBS": "2011-12-17T06:00:00", "TIMESYS": "TAI"}, "2011-12-17T05:59:26"),
        ({"DATE-OBS": "2011-12-17T06:00:00", "TIMESYS": "utc "}, "2011-12-17T06:00:00"),
        ({"DATE-OBS": "2014-01-31", "TIME-OBS": "12:04:05.678"}, "2014-01-31T12:04:05.678"),
        ({"DATE_OBS": "2014-01-31", "TIME_OBS": "12:04"}, "2014-01-31T12:04:00"),
        ({"DATE-OBS": "2014-01-31T01:02:03", "TIME-OBS": "12:04:05"}, "2014-01-31T01:02:03"),
        ({"DATE-OBS": "2014/01/31", "TIME-OBS": "12:04:05"}, "2014-01-31T12:04:05"),
        ({"DATE-OBS": "28/12/97", "TIME-OBS": "05:59:26"}, "1997-12-28T05:59:26"),
        # The leap second of 2016, 36 to 37 s: the second before it, it itself (as POSIX has it), the one after.
        ({"T_REC": "2017.01.01_00:00:35_TAI"}, "2016-12-31T23:59:59"),
        ({"T_REC": "2017.01.01_00:00:36_TAI"}, "2017-01-01T00:00:00"),
        ({"T_REC": "2017.01.01_00:00:37_TAI"}, "2017-01-01T00:00:00"),
        ({"T_REC": "2017.01.01_00:00:38_TAI"}, "2017-01-01T00:00:01"),
        ({"DATE-OBS": "2016-12-31T23:59:60"}, "2017-01-01T00:00:00"),
        ({"T_REC": "1950.01.01_00:00:00_TAI"}, "1950-01-01T00:00:00"),
    ],
)
def test_headers(cards, utc):
    time = time_from_header(cards)
    assert time == ms(utc)
    assert time.dtype == "datetime64[ms]"


@pytest.mark.parametrize(
    "cards",
    [{}, {"DATE-OBS": ""}, {"DATE-OBS": "soon"}, {"DATE-OBS": 5.5}, {"DATE-OBS": None}, {"T_REC": float("nan")},
     {"DATE-OBS": "2011-13-01"}, {"DATE-OBS": "2011-02-30"}, {"DATE": "2011-12-17"}],
)  # fmt: skip
def test_headers_without_a_time(cards):
    assert np.isnat(time_from_header(cards))


@pytest.mark.parametrize("year", [1962, 1968, 1971, 1972, 1975, 1999, 2008, 2016, 2017, 2025])
def test_tai_as_astropy_has_it(year):
    astropy_time = pytest.importorskip("astropy.time")
    for month in (1, 7):
        tai = astropy_time.Time(f"{year}-{month:02d}-15T12:00:00", scale="tai")
        ours = time_from_header({"T_REC": f"{year}.{month:02d}.15_12:00:00_TAI"})
        assert abs(ours - np.datetime64(tai.utc.isot, "ms")) <= np.timedelta64(3, "ms")


@pytest.mark.parametrize(
    ("name", "utc"),
    [
        ("hmi.M_720s.20111217_060000_TAI.fits", "2011-12-17T05:59:26"),
        ("hmi.M_720s.20111217_060000_TAI.magnetogram.fits", "2011-12-17T05:59:26"),
        ("mdi.fd_M_96m_lev182.20110401_000000_TAI.data.fits", "2011-03-31T23:59:26"),
        ("20091228_0300_mdiigr_256.jpg", "2009-12-28T03:00:00"),
        ("aia_2014-01-31T12_00_00.fits", "2014-01-31T12:00:00"),
        ("aia.lev1_euv_12s.2014-01-31T120000Z.171.image_lev1.fits", "2014-01-31T12:00:00"),
        ("aia_lev1_171a_2014_01_31t12_00_11_34z_image_lev1.fits", "2014-01-31T12:00:11"),
        ("2014_01_31__12_00_00_84__SDO_HMI_HMI_magnetogram.jp2", "2014-01-31T12:00:00"),
        ("20140131_120000_4096_HMIB.jpg", "2014-01-31T12:00:00"),
        ("20111217060000.npy", "2011-12-17T06:00:00"),
        ("201112170600.npy", "2011-12-17T06:00:00"),
        ("20111217.fits", "2011-12-17T00:00:00"),
        ("2011/2012/sun-2013.04.05.fits", "2013-04-05T00:00:00"),
        ("20111217_1024x1024.jpg", "2011-12-17T00:00:00"),
        ("20111217_4096.jpg", "2011-12-17T00:00:00"),
        ("from20140230to20140301.fits", "2014-03-01T00:00:00"),
    ],
)
def test_names(name, utc):
    assert time_from_name(name) == ms(utc)
    assert time_from_name(f"/some/20010101/archive.zip/{name}") == ms(utc)


@pytest.mark.parametrize(
    "name",
    ["sun.fits", "frame_000123.fits", "img_12345678.fits", "20111332_x.jpg", "20140230.fits",
     "fd_M_96m_01d.3455.0001.fits", "120111217.fits", "201112170.fits", "99991231.fits",
     "20111217/sun.fits", "1024x1024.png", "", "J2000_0.5"],
)  # fmt: skip
def test_names_without_a_date(name):
    assert np.isnat(time_from_name(name))


@pytest.mark.parametrize(
    ("value", "utc"),
    [
        ("2014-01-31", "2014-01-31T00:00:00"),
        (" 2014-01-31T12:30 ", "2014-01-31T12:30:00"),
        ("2014-01-31 12:30:15.25", "2014-01-31T12:30:15.250"),
        ("2014-01-31T12:30:15.123456", "2014-01-31T12:30:15.123"),
        ("20140131T123015Z", "2014-01-31T12:30:15"),
        ("2014-01-31T12:30+02:00", "2014-01-31T10:30:00"),
        ("2014-01-31T12:30:15-0530", "2014-01-31T18:00:15"),
        ("2014.01.31_12:30:15_TAI", "2014-01-31T12:29:40"),
        (np.datetime64("2014-01-31T12"), "2014-01-31T12:00:00"),
        (np.datetime64("2014-01-31T12:00:00.5", "ns"), "2014-01-31T12:00:00.5"),
        (datetime(2014, 1, 31, 12), "2014-01-31T12:00:00"),
        (datetime(2014, 1, 31, 12, tzinfo=timezone(timedelta(hours=-3))), "2014-01-31T15:00:00"),
    ],
)
def test_what_users_type(value, utc):
    time = parse_time("--between", value)
    assert time == ms(utc)
    assert time.dtype == "datetime64[ms]"


@pytest.mark.parametrize(
    "value",
    ["", "now", "2014", "2014-13-01", "2014-02-30", "2014-01-31T25:00", "2014-01-31 or so", "31.1.2014", 20140131, None,
     float("nan"), np.datetime64("NaT"), "2014-01-31T12:00+2", b"2014-01-31"],
)  # fmt: skip
def test_what_users_mistype(value):
    with pytest.raises(ArgumentError, match=r"^--between: expected a time such as .*, got "):
        parse_time("--between", value)


@given(st.datetimes(datetime(1600, 1, 1), datetime(2199, 12, 31)), st.sampled_from("T _"))
def test_every_time_of_python_reads_back(time, separator):
    expected = np.datetime64(time, "ms")
    assert parse_time("t", time) == expected
    assert parse_time("t", time.isoformat(separator)) == expected
    assert parse_time("t", format_time(expected)) == expected
    assert time_from_header({"DATE-OBS": time.isoformat()}) == expected
    assert time_from_name(f"x_{time:%Y%m%d_%H%M%S}.fits") == expected.astype("datetime64[s]")


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("48h", 2880), ("48", 2880), (" 90min ", 90), ("90m", 90), ("1.5 hours", 90), ("2d", 2880), ("2 days", 2880),
     ("60s", 1), ("0h", 0)],
)  # fmt: skip
def test_spans(text, minutes):
    assert parse_span("--window", text) == np.timedelta64(minutes, "m")


@pytest.mark.parametrize("text", ["", "h", "-3h", "soon", "3 weeks", "1e3h", "nan", "3h 5min", "9" * 400 + "d"])
def test_bad_spans(text):
    with pytest.raises(ArgumentError, match="--window: "):
        parse_span("--window", text)


def test_format():
    assert format_time(np.datetime64("NaT")) == ""
    assert format_time(ms("2014-01-31T12:00")) == "2014-01-31T12:00:00"
    assert format_time(ms("2014-01-31T12:00:00.25")) == "2014-01-31T12:00:00.250"
