"""Simulated magnetograms as FITS files that SunPy opens as HMI maps.

The header is written here, card by card: a FITS library takes as long for it as the simulator for the pixels.
"""

import os
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._storage import atomic_write
from fasthash._version import __version__
from fasthash.errors import ArgumentError
from fasthash.solar.ephemeris import SOLAR_RADIUS, instant, observer, to_days
from fasthash.times import tai_minus_utc

FIELD_OF_VIEW = 4096 * 0.504  # arcseconds across the image, as HMI
_BLOCK, _CARD = 2880, 80  # bytes


def _tai(when: datetime) -> datetime:
    """TAI of a UTC instant, leap seconds and all."""
    shift: timedelta = tai_minus_utc(np.datetime64(when, "ms")).astype(timedelta)
    return when + shift


def file_name(time: Any) -> str:
    """Name of the simulated file of an instant: ``hmi.sim_720s.YYYYMMDD_HHMMSS_TAI.fits``, as T_REC says, in TAI."""
    return f"hmi.sim_720s.{_tai(instant(time)):%Y%m%d_%H%M%S}_TAI.fits"


def _cards(when: datetime, size: int, seed: int | None, rotation: float) -> dict[str, Any]:
    """Keywords and values, or values and comments, in their order."""
    seen, tai = observer(to_days(when)), _tai(when)
    stamp = f"{tai:%Y.%m.%d_%H:%M:%S}.{tai.microsecond // 1000:03d}_TAI"
    scale, middle = FIELD_OF_VIEW / size, (size + 1) / 2
    return {
        "SIMPLE": True,
        "BITPIX": -32,
        "NAXIS": 2,
        "NAXIS1": size,
        "NAXIS2": size,
        "TELESCOP": "SDO/HMI",
        "INSTRUME": "HMI_SIDE1",
        "CONTENT": "MAGNETOGRAM",
        "ORIGIN": "fasthash simulator",
        "SIMULATE": (True, "simulated, not observed"),
        "SIMSEED": ("none" if seed is None else seed, "seed of the simulation"),
        "BUNIT": "Gauss",
        "WAVELNTH": 6173.0,
        "QUALITY": 0,
        "CADENCE": 720.0,
        "DATE-OBS": (f"{when.isoformat(timespec='milliseconds')}", "UTC"),
        "T_OBS": stamp,
        "T_REC": stamp,
        "WCSNAME": "Helioprojective-cartesian",
        "CTYPE1": "HPLN-TAN",
        "CTYPE2": "HPLT-TAN",
        "CUNIT1": "arcsec",
        "CUNIT2": "arcsec",
        "CRPIX1": middle,
        "CRPIX2": middle,
        "CDELT1": scale,
        "CDELT2": scale,
        "CRVAL1": 0.0,
        "CRVAL2": 0.0,
        "CROTA2": (rotation, "degrees from up to solar north, clockwise"),
        "RSUN_OBS": (seen.angular_radius, "arcsec"),
        "RSUN_REF": (SOLAR_RADIUS, "m"),
        "DSUN_OBS": (seen.distance, "m"),
        "HGLN_OBS": 0.0,
        "HGLT_OBS": seen.b0,
        "CRLN_OBS": seen.l0,
        "CRLT_OBS": seen.b0,
    }


def _card(key: str, value: Any) -> str:
    """One card in the fixed format of the FITS standard 4.0, section 4.2."""
    value, comment = value if isinstance(value, tuple) else (value, "")
    if isinstance(value, str):
        text = f"'{value:<8}'".ljust(20)
    else:
        text = f"{'FT'[value] if isinstance(value, bool) else repr(value).upper():>20}"
    return f"{key:<8}= {text}{' / ' if comment else ''}{comment}".ljust(_CARD)


def write_fits(
    path: str | os.PathLike[str], image: NDArray[np.float32], time: Any, seed: int | None = None, rotation: float = 0.0
) -> None:
    """Write a simulated magnetogram, (n, n) in gauss and NaN off the disk, as FITS that SunPy opens as an HMIMap.

    ``rotation`` (degrees) is how it was rendered, and becomes CROTA2. Pixels are float32, since SunPy does not turn
    the BLANK of integers into NaN. The header says SIMULATED, by which version of fasthash and with which seed. The
    file appears whole or not at all. Raises ArgumentError, FastHashError where it cannot be written.
    """
    when = instant(time)
    image = np.asarray(image)
    if image.ndim != 2 or image.shape[0] != image.shape[1]:
        raise ArgumentError(f"image: expected shape (n, n), got {image.shape}")
    cards = [_card(*item) for item in _cards(when, image.shape[0], seed, float(rotation)).items()]
    cards += [f"COMMENT SIMULATED magnetogram, made by fasthash {__version__}; not an observation".ljust(_CARD), "END"]
    header, pixels = "".join(cards).encode("ascii"), image.astype(">f4").tobytes()
    with atomic_write(path) as file:
        file.write(header + b" " * (-len(header) % _BLOCK))
        file.write(pixels + b"\0" * (-len(pixels) % _BLOCK))
