"""When an image was taken, in UTC: from header cards, from file names, from what users type."""

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from fasthash.errors import ArgumentError

NAT = np.datetime64("NaT", "ms")
_YEARS = (1600, 2200)

_STAMP = re.compile(
    r"(?<!\d)(?P<y>\d{4})(?P<d>[-._/]?)(?P<m>\d{2})(?P=d)(?P<day>\d{2})"
    r"(?:[T_ -]+(?P<H>\d{2})(?P<c>[:.]?)(?P<M>\d{2})(?:(?P=c)(?P<S>\d{2})(?P<f>\.\d+)?)?)?"
    r"(?!\d)(?P<zone>_?TAI|_?UTC|Z)?"
)
_SPAN = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|sec|min|m|h|hours?|d|days?)?")
_UNIT_MS = {"ms": 1, "s": 1_000, "sec": 1_000, "min": 60_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def time_from_header(header: Mapping[str, Any]) -> np.datetime64:
    """The time of FITS cards (keys in upper case), datetime64[ms] in UTC; NaT where there is none.

    T_REC, then T_OBS, which are TAI unless they say otherwise; then DATE-OBS (with TIME-OBS), UTC unless TIMESYS says
    TAI.
    """
    for key in ("T_REC", "T_OBS"):
        time = _parse(header.get(key), "TAI")
        if not np.isnat(time):
            return time
    scale = "TAI" if str(header.get("TIMESYS", "")).strip().upper() == "TAI" else "UTC"
    for date, clock in (("DATE-OBS", "TIME-OBS"), ("DATE_OBS", "TIME_OBS")):
        text = str(header.get(date) or "").strip()
        if header.get(clock) and len(text) <= 10:
            text = f"{text}T{header[clock]}"
        time = _parse(text, scale)
        if not np.isnat(time):
            return time
    return NAT


def time_from_name(path: str | os.PathLike[str]) -> np.datetime64:
    """The time of a date in a file's name (``..._20111217_060000_TAI.fits``, ``20091228_0300_...``); NaT without."""
    return _parse(os.path.basename(os.fspath(path)), "UTC")


def parse_time(name: str, text: str) -> np.datetime64:
    """A time that a user typed, ISO 8601, UTC."""
    time = _parse(text, "UTC", whole=True)
    if np.isnat(time):
        raise ArgumentError(f"{name}: expected a time such as 2014-01-31T12:00:00, got {text!r}")
    return time


def parse_span(name: str, text: str) -> np.timedelta64:
    """A length of time that a user typed: ``48h``, ``90min``, ``2d``; a bare number means hours."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise ArgumentError(f"{name}: expected a length of time such as 48h, 90min or 2d, got {text!r}")
    unit = match["unit"] or "h"
    factor = _UNIT_MS.get(unit) or _UNIT_MS[unit[0]]
    return np.timedelta64(round(float(match["number"]) * factor), "ms")


def format_time(time: np.datetime64) -> str:
    """ISO 8601 in UTC, to the second, or to the millisecond where it has any; "" for NaT."""
    if np.isnat(time):
        return ""
    text = str(time.astype("datetime64[ms]"))
    return text.removesuffix(".000")


def _parse(value: Any, scale: str, whole: bool = False) -> np.datetime64:
    text = str(value or "").strip()
    match = _STAMP.fullmatch(text) if whole else _STAMP.search(text)
    while match is not None:
        time = _to_datetime(match)
        if not np.isnat(time):
            zone = (match["zone"] or scale).lstrip("_").upper()
            return _tai_to_utc(time) if zone == "TAI" else time
        match = None if whole else _STAMP.search(text, match.end())
    return NAT


def _to_datetime(match: re.Match[str]) -> np.datetime64:
    clock = f"{match['H'] or '00'}:{match['M'] or '00'}:{match['S'] or '00'}{(match['f'] or '')[:4]}"
    if not _YEARS[0] <= int(match["y"]) < _YEARS[1]:
        return NAT
    try:
        # A leap second, :60, is one second after :59.
        leap = np.timedelta64(1000 if match["S"] == "60" else 0, "ms")
        clock = clock.replace(":60", ":59") if match["S"] == "60" else clock
        return np.datetime64(f"{match['y']}-{match['m']}-{match['day']}T{clock}", "ms") + leap
    except ValueError:
        return NAT


def _tai_to_utc(time: np.datetime64) -> np.datetime64:
    """Subtract TAI - UTC by the table of leap seconds that comes with pyerfa (no network is asked for a newer one)."""
    table = _leap_seconds()
    starts, offsets = table
    offset = np.timedelta64(0, "ms")
    for _ in range(2):  # the offset depends on the UTC date, which depends on the offset
        step = int(np.searchsorted(starts, time - offset, side="right")) - 1
        offset = np.timedelta64(round(float(offsets[step]) * 1000) if step >= 0 else 0, "ms")
    return time - offset


def _leap_seconds() -> tuple[Any, Any]:
    import erfa

    table = erfa.leap_seconds.get()
    starts = np.array([f"{row['year']:04d}-{row['month']:02d}-01" for row in table], "datetime64[ms]")
    return starts, table["tai_utc"]
