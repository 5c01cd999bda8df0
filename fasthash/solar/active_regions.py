"""Active regions for the simulator: drawn from the statistics of the solar cycle, or read from a table of real ones.

Whatever their source, regions end up as one `ActiveRegions`: where each one sits, how its bipole lies, and knots of
its spot area and magnetic flux over time, between which both are linear.
"""

import csv
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._validation import check_int
from fasthash.errors import ArgumentError, FastHashError, ReadError
from fasthash.solar.ephemeris import instant, to_days

FLUX_PER_AREA = 1.2e20  # Mx of unsigned flux, plage included, per millionth of the hemisphere of spots
MEMORY = 22.0  # days in which the plage that spots leave behind fades by e
PLAGE_LIFE = 3 * MEMORY  # it is gone after that
MINIMA = (1954.3, 1964.8, 1976.2, 1986.7, 1996.6, 2008.9, 2019.9)  # of solar activity; the last opens cycle 25
LAST_CYCLE = 25
BLOCK_DAYS = 27.0
GROUPS_PER_DAY = 1.15  # on the whole Sun at the maximum of a cycle like the 24th

_Curve = tuple[Sequence[float], Sequence[float]]  # times in days, spot areas


@dataclass(frozen=True, eq=False)
class ActiveRegions:
    """A table of bipolar active regions: arrays of one entry a region, and the knots of their evolution.

    ``key``: int64, names a region: with the seed it decides the region's fine structure.
    ``latitude``, ``longitude`` (Carrington, at the time ``reference``, in days since 1950): float64, degrees.
    ``separation`` of the two polarities and ``tilt`` (positive: the leading one nearer to the equator): degrees.
    ``polarity``: +1 or -1, the sign of the leading one. ``birth``: days since 1950.
    ``knots``: structured array (region, time, area, flux), sorted by region, then time; area in millionths of the
    hemisphere, unsigned flux in Mx.
    """

    key: NDArray[np.int64]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    reference: NDArray[np.float64]
    separation: NDArray[np.float64]
    tilt: NDArray[np.float64]
    polarity: NDArray[np.float64]
    birth: NDArray[np.float64]
    knots: NDArray[Any]

    def __len__(self) -> int:
        return len(self.key)

    def at(self, days: float) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """The regions alive at a time: their indices, spot areas and fluxes."""
        before, after = self.knots[:-1], self.knots[1:]
        live = (before["time"] <= days) & (days < after["time"]) & (before["region"] == after["region"])
        before, after = before[live], after[live]
        weight = (days - before["time"]) / (after["time"] - before["time"])
        area, flux = (before[name] * (1 - weight) + after[name] * weight for name in ("area", "flux"))
        return before["region"], area, flux


_KNOT = np.dtype([("region", np.int64), ("time", np.float64), ("area", np.float64), ("flux", np.float64)])
_ROW = np.dtype(
    [(name, np.int64 if name == "key" else np.float64) for name in list(ActiveRegions.__annotations__)[:-2]]
)


def _assemble(rows: Sequence[tuple[Any, ...]], curves: Sequence[_Curve]) -> ActiveRegions:
    """Regions from rows (key ... polarity) and, for each, its curve of spot area."""
    table = np.array(rows, dtype=_ROW)
    knots = [_knots(i, *curve) for i, curve in enumerate(curves)]
    birth = np.array([k["time"][0] for k in knots])
    columns = {name: np.ascontiguousarray(table[name]) for name in _ROW.names or ()}
    return ActiveRegions(**columns, birth=birth, knots=np.concatenate([np.empty(0, _KNOT), *knots]))


def _knots(region: int, time: Sequence[float], area: Sequence[float]) -> NDArray[Any]:
    """Knots of area and flux: the flux grows with the spots and outlives them, fading over weeks."""
    flux = FLUX_PER_AREA * np.asarray(area, dtype=np.float64)
    for i in range(1, len(flux)):
        flux[i] = max(flux[i], flux[i - 1] * np.exp((time[i - 1] - time[i]) / MEMORY))
    fading = np.linspace(0, PLAGE_LIFE, 7)[1:]
    tail = flux[-1] * np.exp(-fading / MEMORY)
    tail[-1] = 0.0
    knots = np.empty(len(flux) + len(fading), _KNOT)
    knots["region"] = region
    knots["time"] = [*time, *(time[-1] + fading)]
    knots["area"] = [*area, *np.zeros(len(fading))]
    knots["flux"] = [*flux, *tail]
    return knots


def _cycle(days: float) -> tuple[int, float]:
    """Number of the solar cycle at a time, and the years since its minimum; beyond the known ones 11 years each."""
    year = 1950 + days / 365.25
    minima = [*MINIMA, *(MINIMA[-1] + 11.0 * k for k in range(1, 9))]
    index = int(np.searchsorted(minima, year, side="right")) - 1
    return LAST_CYCLE - len(MINIMA) + 1 + index, year - minima[index]


def hale_polarity(latitude: float, days: float) -> float:
    """Sign of the leading polarity by Hale's law: negative in the north in cycles of even number.

    Hale, Ellerman, Nicholson and Joy (1919, ApJ 49, 153), as are the tilts of Joy's law.
    """
    cycle, _ = _cycle(days)
    return float((-1) ** (cycle + 1) * (1 if latitude >= 0 else -1))


def _activity(years: float) -> float:
    """Activity in a cycle relative to its maximum, by the shape of Hathaway, Wilson and Reichmann (1994)."""
    x = years * 12 / 50.0
    return float(2.15 * x**3 / (np.exp(x * x) - 0.71))


def _separation(area: float) -> float:
    """Distance of the polarities in degrees for a spot area: a power law fitted to bipoles on real magnetograms."""
    return float(5.0 * (FLUX_PER_AREA * max(area, 1.0) / 1e22) ** 0.26)


def _tilt(rng: np.random.Generator, latitude: float) -> float:
    """Joy's law with its scatter, in degrees: half a degree a degree of latitude (Li and Ulrich 2012, ApJ 758, 115)."""
    return float(0.5 * abs(latitude) + rng.normal(0, 18))


def statistical_regions(start: Any, days: float, seed: int = 0, activity: float = 1.0) -> ActiveRegions:
    """Active regions as the solar cycle makes them, for ``days`` from ``start`` (UTC) on.

    Rate and latitude follow the date's place in the solar cycle: the butterfly of Hathaway (2011, Solar Physics 273,
    221). Greatest areas are log-normal (Baumann and Solanki 2005, A&A 443, 1061), and spots decay in a day for every 10
    millionths (the rule of Gnevyshev and Waldmeier; Petrovay and van Driel-Gesztelyi 1997, Solar Physics 176, 249). A
    third of the regions emerge in nests (Castenmiller, Zwaan and van der Zalm 1986, Solar Physics 105, 237), one in
    twenty breaks Hale's law (Munoz-Jaramillo et al., arXiv:2203.11898). ``activity`` scales the rate (0: a Sun without
    regions). The same seed gives the same regions at the same date whatever ``start`` and ``days`` are.
    Raises ArgumentError.
    """
    first = to_days(instant(start, "start"))
    if not (np.isfinite(days) and days > 0):
        raise ArgumentError(f"days: expected a positive number, got {days!r}")
    if not (np.isfinite(activity) and activity >= 0):
        raise ArgumentError(f"activity: expected a number of at least 0, got {activity!r}")
    check_int("seed", seed, 0)
    rows: list[tuple[Any, ...]] = []
    curves: list[_Curve] = []
    # Regions are drawn block by block, each from its own generator; the blocks before bring what is still alive.
    for block in range(int((first - 2 * PLAGE_LIFE) // BLOCK_DAYS), int((first + days) // BLOCK_DAYS) + 1):
        for row, curve in _draw_block(block, seed, activity):
            rows.append(row)
            curves.append(curve)
    return _assemble(rows, curves)


def _draw_block(block: int, seed: int, activity: float) -> Iterable[tuple[tuple[Any, ...], _Curve]]:
    rng = np.random.default_rng([seed, block])
    middle = (block + 0.5) * BLOCK_DAYS
    _, years = _cycle(middle)
    nests: list[tuple[float, float]] = []
    for i in range(rng.poisson(GROUPS_PER_DAY * BLOCK_DAYS * activity * _activity(years))):
        if nests and rng.random() < 1 / 3:
            latitude, longitude = np.array(nests[rng.integers(len(nests))]) + rng.normal(0, 2.5, 2)
        else:
            belt = 28 * np.exp(-years / 7.5)
            latitude, longitude = rng.choice([-1, 1]) * rng.normal(belt, 5.0), rng.uniform(0, 360)
        nests.append((latitude, longitude))
        birth = (block + rng.random()) * BLOCK_DAYS
        area = float(np.clip(rng.lognormal(np.log(50), 1.2), 5, 3000))
        rise, decay = 1 + area**0.25, np.clip(area / 10, 2, 45)
        when = birth + np.cumsum([0, rise / 2, rise / 2, decay / 2, decay / 2])
        sign = hale_polarity(latitude, middle) * (1 if rng.random() < 0.95 else -1)
        row = (block * 1000 + i, latitude, longitude % 360, birth, _separation(area), _tilt(rng, latitude), sign)
        yield row, (when.tolist(), [0.0, 0.6 * area, area, 0.4 * area, 0.0])


def read_active_regions(path: str | os.PathLike[str], seed: int = 0) -> ActiveRegions:
    """Real active regions from one of two tables, told apart by their content:

    - daily sunspot groups (USAF/NOAA, as compiled by Hathaway): a group seen on several days is one region whose
      area follows the records. Its tilt and small departures are drawn with ``seed``; its polarity is Hale's;
    - a CSV of bipoles with the columns of the ARISE data base (Wang et al. 2023): positions and fluxes of both
      polarities when the region crosses the central meridian; its growth and decay are a guess.

    Raises ReadError that names the file and the line where the table makes no sense, and ArgumentError.
    """
    check_int("seed", seed, 0)
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not a text file" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ReadError(f"{path}: {reason}") from error
    number, head = next(((i, line) for i, line in enumerate(lines, 1) if line.strip()), (1, ""))
    if "Lat(pos)" in head:
        return _read_bipoles(path, lines[number - 1 :], number)
    if re.match(r"\d{4}[ \d]\d[ \d]\d\.\d", head):
        return _read_daily_groups(path, lines, seed)
    raise ReadError(f"{path}: line {number}: neither a daily sunspot-group record nor the header of a table of bipoles")


def _parse_lines(path: Any, records: Iterable[tuple[int, Any]], parse: Callable[[Any], Any]) -> list[Any]:
    """Parse every record; whatever goes wrong in one becomes a ReadError with its line."""
    parsed: list[Any] = []
    number = 0
    try:
        for line, record in records:
            number = line
            parsed.append(parse(record))
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, csv.Error, FastHashError) as error:
        reason = f"column {error} is missing" if isinstance(error, KeyError) else error
        raise ReadError(f"{path}: line {number}: not an active-region record: {reason}") from error
    return parsed


def _number(text: str, name: str, low: float, high: float) -> float:
    value = float(text or "")  # a row that is cut short brings None
    if not low <= value <= high:  # NaN fails too
        raise ValueError(f"{name} {text.strip()} is not in [{low:g}, {high:g}]")
    return value


def _parse_daily(line: str) -> tuple[int, float, float, float, float, float]:
    """Group number, time, spot area, Carrington longitude, latitude and distance from the central meridian."""
    fields = line[20:].split()[-8:]  # one or both of the types before them may be missing
    if len(fields) < 8:
        raise ValueError("too few columns")
    day = instant(datetime(int(line[:4]), int(line[4:6]), 1)) + timedelta(days=_number(line[6:12], "day", 1, 32) - 1)
    area = _number(fields[0], "area", 0, 20000)
    longitude = _number(fields[5], "longitude", 0, 360)
    latitude = _number(fields[6], "latitude", -90, 90)
    return (
        int(_number(line[12:20], "group number", 0, 1e8)),
        to_days(day),
        area,
        longitude,
        latitude,
        _number(fields[7], "distance", -180, 180),
    )


def _read_daily_groups(path: Any, lines: list[str], seed: int) -> ActiveRegions:
    records = [(i, line) for i, line in enumerate(lines, 1) if line.strip()]
    groups: dict[int, list[tuple[float, ...]]] = {}
    for key, *record in _parse_lines(path, records, _parse_daily):
        groups.setdefault(key, []).append(tuple(record))
    rows, curves = [], []
    for key, group in groups.items():
        time, area, longitude, latitude, meridian = np.array(sorted(group)).T
        _, once = np.unique(time, return_index=True)  # two records of one time: the first counts
        time, area = time[once], area[once]
        place = np.degrees(np.mean(np.unwrap(np.radians(longitude)))) % 360
        middle, lat = float(time.mean()), float(latitude.mean())
        rng = np.random.default_rng([seed, key])
        rows.append((key, lat, place, middle, _separation(area.max()), _tilt(rng, lat), hale_polarity(lat, middle)))
        # A group that comes round the limb is older than its first record, one that goes round it lives on.
        rise, fall = (5.0 if meridian[0] < -60 else 1.0), (5.0 if meridian[-1] > 60 else 1.0)
        curves.append(([time[0] - rise, *time, time[-1] + fall], [0.0, *area, 0.0]))
    return _assemble(rows, curves)


def _parse_bipole(row: dict[str, str]) -> tuple[tuple[Any, ...], _Curve]:
    place = {name: _number(row[name], name, -90, 90) for name in ("Lat(pos)", "Lat(neg)", "Lat(whole)")}
    place |= {name: _number(row[name], name, 0, 360) for name in ("Lon(pos)", "Lon(neg)", "Lon(whole)")}
    flux = abs(_number(row["Flux(pos, Mx)"], "flux", 0, 1e24)) + abs(_number(row["Flux(neg, Mx)"], "flux", -1e24, 0))
    crossing = to_days(instant(row["cm_time_utc"], "cm_time_utc"))
    latitude, longitude = place["Lat(whole)"], place["Lon(whole)"]
    west = ((place["Lon(pos)"] - place["Lon(neg)"] + 180) % 360 - 180) * np.cos(np.radians(latitude))
    north = place["Lat(pos)"] - place["Lat(neg)"]
    polarity = 1.0 if west >= 0 else -1.0
    equatorward = -north * polarity * (1 if latitude >= 0 else -1)
    tilt = np.degrees(np.arctan2(equatorward, abs(west)))
    area = flux / FLUX_PER_AREA
    key = int(_number(row["CR"], "CR", 0, 1e5)) * 1000 + int(_number(row["Label"], "Label", 0, 999))
    # Nothing is known but the crossing: full size from the east limb to the middle, then the usual decay.
    time = crossing + np.array([-12, -7, 0, np.clip(area / 10, 2, 45)])
    bipole = (key, latitude, longitude, crossing, float(np.hypot(west, north)), tilt, polarity)
    return bipole, (time.tolist(), [0.0, area, area, 0.0])


def _read_bipoles(path: Any, lines: list[str], first: int) -> ActiveRegions:
    reader = csv.DictReader(lines)
    records = ((first + reader.line_num - 1, row) for row in reader)
    parsed = _parse_lines(path, records, _parse_bipole)
    if not parsed:
        raise ReadError(f"{path}: line {first}: no active region follows the header")
    return _assemble([row for row, _ in parsed], [curve for _, curve in parsed])
