"""When and where: time stamps, the observer at the Earth, the flows of the Sun.

Inside the simulator a time is one float64: days since 1950-01-01T00:00 UTC.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthash.errors import ArgumentError
from fasthash.times import parse_time

CARRINGTON_RATE = 14.1844  # sidereal rotation of the Carrington system, degrees a day
SOLAR_RADIUS = 6.96e8  # m; the RSUN_REF of HMI
ASTRONOMICAL_UNIT = 1.495978707e11  # m
_ORIGIN = datetime(1950, 1, 1)
_ORIGIN_JD = 2433282.5
FIRST_YEAR, LAST_YEAR = 1960, 2100  # UTC with leap seconds begins in 1960; the ephemeris is good to about 2100


@dataclass(frozen=True)
class Observer:
    """Where the disk is seen from: Stonyhurst longitude 0, ``b0`` and Carrington ``l0`` in degrees, distance in m."""

    b0: float
    l0: float
    distance: float

    @property
    def angular_radius(self) -> float:
        """Apparent radius of the Sun in arcseconds (RSUN_OBS)."""
        return float(np.degrees(np.arcsin(SOLAR_RADIUS / self.distance)) * 3600)


def instant(value: Any, name: str = "time") -> datetime:
    """A UTC instant (naive datetime) in 1960 to 2100 from whatever :func:`fasthash.times.parse_time` takes.

    Raises ArgumentError that names the argument ``name``.
    """
    time = parse_time(name, value)
    if not np.datetime64(f"{FIRST_YEAR}") <= time < np.datetime64(f"{LAST_YEAR + 1}"):
        raise ArgumentError(f"{name}: expected a time in {FIRST_YEAR} to {LAST_YEAR}, got {value}")
    when: datetime = time.astype(datetime)
    return when


def to_days(time: datetime) -> float:
    """Days since 1950-01-01T00:00 UTC."""
    return (time - _ORIGIN) / timedelta(days=1)


def observer(days: float) -> Observer:
    """The Earth-bound observer, from the low-precision formulae of Meeus, Astronomical Algorithms, ch. 25 and 29.

    B0, L0 and the distance are good to 0.02 degrees, 0.15 degrees and 0.0001 au in 1960 to 2100.
    """
    jd = days + _ORIGIN_JD + 69.0 / 86400  # UTC to terrestrial time; the slow change of the 69 s does not matter
    century = (jd - 2451545.0) / 36525
    anomaly = np.radians(357.52911 + 35999.05029 * century)
    centre = 1.914602 * np.sin(anomaly) + 0.019993 * np.sin(2 * anomaly) + 0.000289 * np.sin(3 * anomaly)
    longitude = np.radians(280.46646 + 36000.76983 * century + centre - 0.00569)  # less the aberration
    distance = 1.00014 - 0.01671 * np.cos(anomaly) - 0.00014 * np.cos(2 * anomaly)  # au

    inclination = np.radians(7.25)
    from_node = longitude - np.radians(73.6667 + 1.3958333 * (jd - 2396758) / 36525)
    b0 = np.arcsin(np.sin(from_node) * np.sin(inclination))
    eta = np.arctan2(-np.sin(from_node) * np.cos(inclination), -np.cos(from_node))
    meridian = (jd - 2398220) * 360 / 25.38
    l0 = (np.degrees(eta) - meridian) % 360
    return Observer(float(np.degrees(b0)), float(l0), float(distance * ASTRONOMICAL_UNIT))


def carrington_drift(latitude: ArrayLike) -> NDArray[np.float64]:
    """Degrees a day by which magnetic features at ``latitude`` (degrees) move ahead in Carrington longitude.

    Sidereal rotation 2.894 - 0.428 sin^2 - 0.370 sin^4 microradians a second, measured on magnetograms by
    Howard, Harvey and Forgach (1990, Solar Physics 130, 295).
    """
    s = np.sin(np.radians(np.asarray(latitude, dtype=np.float64))) ** 2
    return np.degrees((2.894 - 0.428 * s - 0.370 * s * s) * 1e-6 * 86400) - CARRINGTON_RATE


def meridional_drift(latitude: ArrayLike) -> NDArray[np.float64]:
    """Degrees a day by which magnetic features at ``latitude`` (degrees) move north: towards the pole on either side.

    12.9 sin(2 latitude) + 1.4 sin(4 latitude) metres a second, measured on magnetograms by Komm, Howard and Harvey
    (1993, Solar Physics 147, 207).
    """
    angle = 2 * np.radians(np.asarray(latitude, dtype=np.float64))
    return np.degrees((12.9 * np.sin(angle) + 1.4 * np.sin(2 * angle)) * 86400 / SOLAR_RADIUS)
