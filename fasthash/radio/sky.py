"""Where on the sky an image is, by its file's name, and how much of the sky a pixel is, by its header."""

import math
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash.errors import ArgumentError

PIXEL = 1.8  # arcseconds: a pixel of FIRST, and of a picture that tells nothing else

# Arcseconds within which two positions are one source: catalogues place an extended one at its core or at the middle
# of its lobes. In the published sets the numbers of pairs hardly grow between 30" and 60".
SAME_SOURCE = 60.0

_SEXAGESIMAL = re.compile(r"J(\d\d)(\d\d)(\d\d(?:\.\d+)?)([+-])(\d\d)(\d\d)(\d\d(?:\.\d+)?)")
_DEGREES = re.compile(r"(\d{1,3}\.\d+)_([+-]?\d{1,2}\.\d+)_")


def position_from_name(path: str) -> tuple[float, float]:
    """Right ascension and declination in degrees from a file's name; NaN where it tells none.

    Read are ``J000331.21+002804.3`` (h m s, d m s) and, at the start of a name, ``0.878_0.466_`` (degrees).
    """
    name = os.path.basename(path)
    if match := _SEXAGESIMAL.search(name):
        hours, minutes, seconds, sign, *arc = match.groups()
        ra = 15 * (float(hours) + float(minutes) / 60 + float(seconds) / 3600)
        dec = float(arc[0]) + float(arc[1]) / 60 + float(arc[2]) / 3600
        dec = -dec if sign == "-" else dec
    elif match := _DEGREES.match(name):
        ra, dec = float(match[1]), float(match[2])
    else:
        return math.nan, math.nan
    return (ra, dec) if ra < 360 and abs(dec) <= 90 else (math.nan, math.nan)


def pixel_scale(header: Mapping[str, Any]) -> float:
    """Arcseconds a pixel by a FITS header (CD matrix or CDELT, in degrees), or `PIXEL` where it tells none."""
    try:
        if any(f"CD{i}_{j}" in header for i in (1, 2) for j in (1, 2)):
            matrix = [float(header.get(f"CD{i}_{j}", 0.0)) for i in (1, 2) for j in (1, 2)]
            scale = math.sqrt(abs(matrix[0] * matrix[3] - matrix[1] * matrix[2]))
        else:
            scale = math.sqrt(abs(float(header["CDELT1"]) * float(header["CDELT2"])))
    except (KeyError, TypeError, ValueError):
        return PIXEL
    # No survey's pixels are beyond these: a header that says so means something else, such as pixels as the unit.
    return 3600 * scale if 0.01 <= 3600 * scale <= 120 else PIXEL


def sky_pairs(one: NDArray[np.float64], two: NDArray[np.float64], radius: float) -> NDArray[np.int64]:
    """Pairs of rows (m, 2) of two lists of positions (n, 2), degrees, that are less than ``radius`` arcseconds apart.

    Sorted; NaN is near nothing.
    """
    if not 0 <= radius <= 3600:
        raise ArgumentError(f"radius: expected arcseconds in [0, 3600], got {radius}")
    from scipy.spatial import cKDTree

    known = [np.flatnonzero(np.isfinite(each).all(axis=1)) for each in (one, two)]
    if radius == 0 or not len(known[0]) or not len(known[1]):
        return np.empty((0, 2), np.int64)
    trees = [cKDTree(_unit_vectors(each[rows])) for each, rows in zip((one, two), known, strict=True)]
    chord = 2 * math.sin(math.radians(radius / 3600) / 2)
    pairs = [
        (known[0][i], known[1][j]) for i, near in enumerate(trees[0].query_ball_tree(trees[1], chord)) for j in near
    ]
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def _unit_vectors(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    ra, dec = np.radians(positions).T
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
