"""When an image was taken, in UTC: from header cards, from file names, from what users type."""

import os
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from fasthash.errors import ArgumentError

NAT = np.datetime64("NaT", "ms")
Span = timedelta | np.timedelta64 | str | float  # "48h", "90min", "5d"; a bare number means hours
_YEARS = range(1600, 2200)

_DATE = r"(?P<y>\d{4})(?P<d>[-._/]?)(?P<m>0[1-9]|1[0-2])(?P=d)(?P<day>0[1-9]|[12]\d|3[01])"
_CLOCK = r"(?P<H>[01]\d|2[0-3])(?P<c>[:._-]?)(?P<M>[0-5]\d)(?:(?P=c)(?P<S>[0-5]\d|60)(?:\.(?P<f>\d+))?)?"
_ZONE = r"(?:[ _]?(?P<zone>TAI|UTC|Z))?"
# What follows the date may be the size of the picture, 1024x1024.
_STAMP = re.compile(rf"(?<!\d){_DATE}(?:[T_ -]*{_CLOCK})?(?!\d|x\d){_ZONE}", re.IGNORECASE)
_TYPED = re.compile(rf"{_DATE}(?:[T_ ]{_CLOCK})?(?:{_ZONE}|(?P<sign>[+-])(?P<oh>\d\d):?(?P<om>[0-5]\d))", re.IGNORECASE)
# The format of DATE-OBS until 1999, always in the 20th century (FITS standard 4.0, section 4.4.2.1).
_OLD_DATE = re.compile(r"^(\d\d)/(\d\d)/(\d\d)(?!\d)")

_SPAN = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|sec|min|m|h|hours?|d|days?)?")
_UNIT_MS = {"ms": 1, "s": 1_000, "sec": 1_000, "min": 60_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def time_from_header(header: Mapping[str, Any]) -> np.datetime64:
    """The time of FITS cards (keys in upper case), datetime64[ms] in UTC; NaT where there is none.

    T_REC, then T_OBS, which are TAI unless they say otherwise; then DATE-OBS (with TIME-OBS), UTC unless TIMESYS says
    TAI.
    """
    for key in ("T_REC", "T_OBS"):
        time = _search(str(header.get(key, "")), "TAI")
        if not np.isnat(time):
            return time
    scale = str(header.get("TIMESYS", "")).strip().upper()
    for date, clock in (("DATE-OBS", "TIME-OBS"), ("DATE_OBS", "TIME_OBS")):
        text = _OLD_DATE.sub(r"19\3-\2-\1", str(header.get(date, "")).strip())
        if len(text) == len("2014-01-31") and header.get(clock):
            text = f"{text}T{header[clock]}"
        time = _search(text, scale)
        if not np.isnat(time):
            return time
    return NAT


def time_from_name(path: str | os.PathLike[str]) -> np.datetime64:
    """The time of a date in a file's name (``..._20111217_060000_TAI.fits``, ``20091228_0300_...``); NaT without."""
    return _search(os.path.basename(os.fspath(path)), "UTC")


def parse_time(name: str, value: Any) -> np.datetime64:
    """The UTC instant, datetime64[ms], of the argument ``name``.

    Parameters
    ----------
    value : str, datetime.datetime or numpy.datetime64
        Text is ISO 8601, a date alone or with a time of day; without an offset (``Z``, ``+02:00``, ``_TAI``) it is
        UTC, as is a datetime without a time zone.

    Raises
    ------
    ArgumentError
        Where it is none of these, or no date of the calendar.
    """
    time: np.datetime64 = NAT
    if isinstance(value, np.datetime64):
        time = value.astype("datetime64[ms]")
    elif isinstance(value, datetime):
        aware = value.tzinfo is not None
        time = np.datetime64(value.astimezone(timezone.utc).replace(tzinfo=None) if aware else value, "ms")
    elif isinstance(value, str):
        match = _TYPED.fullmatch(value.strip())
        time = NAT if match is None else _instant(match, "UTC") - _offset(match)
    if np.isnat(time):
        raise ArgumentError(f"{name}: expected a time such as 2014-01-31T12:00:00, got {value!r}")
    return time


def parse_span(name: str, text: str) -> np.timedelta64:
    """A length of time that a user typed: ``48h``, ``90min``, ``2d``; a bare number means hours."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise ArgumentError(f"{name}: expected a length of time such as 48h, 90min or 2d, got {text!r}")
    unit = match["unit"] or "h"
    ms = float(match["number"]) * (_UNIT_MS.get(unit) or _UNIT_MS[unit[0]])
    if ms > 2**53:
        raise ArgumentError(f"{name}: {text} is longer than anything")
    return np.timedelta64(round(ms), "ms")


def as_span(name: str, value: Span) -> np.timedelta64:
    """A length of time of at least zero, timedelta64[ms]: from a timedelta, text such as ``6h``, or hours."""
    if isinstance(value, timedelta):
        value = np.timedelta64(value)
    span = value if isinstance(value, np.timedelta64) else parse_span(name, str(value))
    if not span >= np.timedelta64(0, "ms"):  # nor is NaT
        raise ArgumentError(f"{name}: expected at least 0, got {value!r}")
    return span.astype("timedelta64[ms]")


def format_time(time: np.datetime64) -> str:
    """ISO 8601 in UTC, to the second, or to the millisecond where it has any; "" for NaT."""
    if np.isnat(time):
        return ""
    text = str(time.astype("datetime64[ms]"))
    return text.removesuffix(".000")


def _search(text: str, scale: str) -> np.datetime64:
    """The first date of the calendar in ``text``, on the time scale it names, else on ``scale``."""
    for match in _STAMP.finditer(text):
        time = _instant(match, scale)
        if not np.isnat(time):
            return time
    return NAT


def _instant(match: re.Match[str], scale: str) -> np.datetime64:
    if int(match["y"]) not in _YEARS:
        return NAT
    try:
        day = np.datetime64(f"{match['y']}-{match['m']}-{match['day']}", "ms")
    except ValueError:  # the 30th of February
        return NAT
    # A leap second, 23:59:60, is the first of the next day, as in POSIX.
    seconds = 3600 * int(match["H"] or 0) + 60 * int(match["M"] or 0) + int(match["S"] or 0)
    time = day + np.timedelta64(1000 * seconds + int((match["f"] or "")[:3].ljust(3, "0")), "ms")
    return _tai_to_utc(time) if (match["zone"] or scale).upper() == "TAI" else time


def _offset(match: re.Match[str]) -> np.timedelta64:
    minutes = 60 * int(match["oh"] or 0) + int(match["om"] or 0)
    return np.timedelta64(-minutes if match["sign"] == "-" else minutes, "m")


def _tai_to_utc(time: np.datetime64) -> np.datetime64:
    utc = time
    for _ in range(2):  # the difference depends on the UTC date, which depends on the difference
        utc = time - tai_minus_utc(utc)
    return utc


def tai_minus_utc(utc: np.datetime64) -> np.timedelta64:
    """TAI - UTC by the table of leap seconds inside pyerfa (no network is asked for a newer one); 0 before 1960."""
    import erfa

    day = utc.astype("datetime64[D]")
    year, month, number = (int(part) for part in str(day).split("-"))
    # The plain function would warn of dates before 1960 and some years ahead; its status says the same.
    seconds, _status = erfa.ufunc.dat(year, month, number, float((utc - day) / np.timedelta64(1, "D")))
    return np.timedelta64(round(float(seconds) * 1000), "ms")
