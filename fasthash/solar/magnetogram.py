"""What a solar encoder sees of a full-disk magnetogram: north up, in gauss, and nothing but the disk."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash.descriptor import GridHistogram
from fasthash.errors import ReadError
from fasthash.io import Image

# Pixels: a disk whose radius or centre is said to be beyond this is a mistake of its header.
_FARTHEST = 1e6
_ARCSECONDS = {"arcmin": 60.0, "deg": 3600.0, "rad": 3600 * math.degrees(1)}  # in other units of CDELT1


@dataclass(frozen=True)
class Disk:
    """Where the solar disk lies in an image: centre (zero-based pixel, x then y), radius in pixels, rotation.

    ``rotation`` (degrees) is CROTA2: how far solar north is turned from the upward direction of the rows.
    """

    x: float
    y: float
    radius: float
    rotation: float


def header_number(header: Mapping[str, Any], *keys: str) -> float | None:
    """The first of these FITS cards that holds a finite number; None where none does."""
    for key in keys:
        try:
            value = float(header[key])
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(value):
            return value
    return None


def disk_from_header(header: Mapping[str, Any]) -> Disk | None:
    """The disk as FITS cards tell it (Thompson 2006, A&A 449, 791); None where they do not."""

    number = functools.partial(header_number, header)
    x, y, scale = number("CRPIX1"), number("CRPIX2"), number("CDELT1")
    angular = number("RSUN_OBS", "RSUN", "SOLAR_R")  # arcseconds
    unit = _ARCSECONDS.get(str(header.get("CUNIT1", "")).strip().lower(), 1.0)
    radius = angular / abs(scale * unit) if angular and scale else number("R_SUN")
    if x is None or y is None or radius is None:
        return None
    # The reference pixel is the disk's centre where its coordinates are (0, 0).
    if scale:
        x -= (number("CRVAL1") or 0.0) / scale
        y -= (number("CRVAL2") or 0.0) / (number("CDELT2") or scale)
    rotation = number("CROTA2", "CROTA")
    if rotation is None:
        rotation = math.degrees(math.atan2(number("PC2_1") or 0.0, number("PC1_1") or 1.0))
    if not 0 < radius < _FARTHEST or not max(abs(x), abs(y)) < _FARTHEST:
        return None
    return Disk(x - 1.0, y - 1.0, radius, rotation)


def hmi_gauss(header: Mapping[str, Any]) -> float:
    """The factor that brings an instrument's field to HMI's: MDI reads 1.40 times as much (Liu et al. 2012).

    Solar Physics 279, 295; the ratio of calibrated line-of-sight full-disk magnetograms. 1 for any other instrument.
    """
    names = {str(header.get(key, "")).strip().upper() for key in ("INSTRUME", "TELESCOP")}
    return 1 / 1.40 if names & {"MDI", "SOHO/MDI"} else 1.0


def to_gauss(image: Image, grey_range: tuple[float, float] = (-1000.0, 1000.0)) -> NDArray[np.float32]:
    """The image's pixels in gauss, rows running up as in FITS.

    Pictures, which carry no unit, have their grey levels, black to white, taken as ``grey_range``.
    """
    if image.full_scale is None:
        return image.pixels
    low, high = grey_range
    grey = image.pixels[::-1] * np.float32((high - low) / image.full_scale) + np.float32(low)
    return np.ascontiguousarray(grey)


def orient(image: Image, grey_range: tuple[float, float] = (-1000.0, 1000.0)) -> NDArray[np.float32]:
    """The image's pixels with solar north towards the last row, in gauss, NaN off the disk.

    Turned by the multiple of 90 degrees that is nearest to the header's rotation; pictures as `to_gauss` takes them.
    """
    pixels = to_gauss(image, grey_range)
    disk = None if image.full_scale is not None else disk_from_header(image.header)
    if disk is None:
        return pixels
    pixels = mask_sky(pixels, disk)
    # At CROTA2 = 90 solar north lies towards the last column, whence one turn back brings it to the last row.
    return np.ascontiguousarray(np.rot90(pixels, -round(disk.rotation / 90.0)))


def mask_sky(pixels: NDArray[np.float32], disk: Disk) -> NDArray[np.float32]:
    """A copy with NaN wherever a pixel's centre lies off the disk."""
    height, width = pixels.shape
    masked = np.full_like(pixels, np.nan)
    for y in range(max(0, math.ceil(disk.y - disk.radius)), min(height, math.floor(disk.y + disk.radius) + 1)):
        half = math.sqrt(max(0.0, disk.radius**2 - (y - disk.y) ** 2))
        row = slice(max(0, math.ceil(disk.x - half)), max(0, min(width, math.floor(disk.x + half) + 1)))
        masked[y, row] = pixels[y, row]
    return masked


class MagnetogramHistogram:
    """The front end of encoders of kind "magnetogram-histogram": MFGDV as shares of each cell's pixels.

    Shares make frames of different sizes comparable; counts alone would not be.
    """

    def __init__(self, grid: GridHistogram) -> None:
        self.grid = grid

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "MagnetogramHistogram":
        """From the settings that an encoder's metadata hold: the arguments of GridHistogram."""
        values = {key: settings[key] for key in ("rows", "cols", "bins", "value_range", "outside")}
        return cls(GridHistogram(**values))

    def settings(self) -> dict[str, Any]:
        """What from_settings takes, and JSON can hold."""
        grid = self.grid
        return {
            "kind": "magnetogram-histogram",
            "rows": grid.rows,
            "cols": grid.cols,
            "bins": grid.bins,
            "value_range": list(grid.value_range),
            "outside": grid.outside,
        }

    def describe(self, image: Image, num_threads: int = 1) -> NDArray[np.float32]:
        """float32 array (rows * cols * bins,): the share of an average cell's pixels that fall into each bin."""
        pixels = orient(image, self.grid.value_range)
        if pixels.shape[0] < self.grid.rows or pixels.shape[1] < self.grid.cols:
            cells = f"{self.grid.cols} x {self.grid.rows} cells"
            raise ReadError(f"{image.path or 'image'}: {pixels.shape[1]} x {pixels.shape[0]} pixels for {cells}")
        counts = self.grid.transform(pixels, num_threads)[0]
        if not counts.any():
            raise ReadError(f"{image.path or 'image'}: no pixel of the solar disk lies within {self.grid.value_range}")
        return (counts * (self.grid.rows * self.grid.cols / pixels.size)).astype(np.float32)
