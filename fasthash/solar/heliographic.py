"""Where on the Sun a pixel lies, at which angle it is seen, and how much of the surface it shows."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash.errors import ArgumentError, ReadError
from fasthash.io import Image
from fasthash.solar.ephemeris import SOLAR_RADIUS, instant, observer, to_days
from fasthash.solar.magnetogram import Disk, disk_from_header, header_number


@dataclass(frozen=True)
class View:
    """The Sun as an image shows it: its disk, and from where it is seen.

    ``b0`` and ``longitude``: Stonyhurst heliographic latitude and longitude of the observer, degrees.
    ``angular_radius``: apparent radius of the Sun, radians, which also tells how far away it is.
    Places on the Sun are unit vectors from its centre: x west and y north in the sky, z to the observer.
    """

    disk: Disk
    b0: float
    longitude: float
    angular_radius: float

    @property
    def distance(self) -> float:
        """From the Sun's centre, in solar radii."""
        return 1 / math.sin(self.angular_radius)

    def surface(self, shape: tuple[int, int]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """What each pixel of an image shows: mu, place and size, float64 (h, w), (3, h, w) and (h, w).

        mu is the cosine of the angle between the line of sight and the vertical, 0 off the disk; size is the pixel's
        side across the line of sight, cm: it shows size**2 / mu of the surface.
        """
        rows, columns = np.indices(shape, sparse=True)
        u, v = (columns - self.disk.x) / self.disk.radius, (rows - self.disk.y) / self.disk.radius
        turn = math.radians(self.disk.rotation)
        west, north = u * math.cos(turn) - v * math.sin(turn), u * math.sin(turn) + v * math.cos(turn)
        rho = np.minimum(np.hypot(u, v), 1.0)
        angle = rho * self.angular_radius
        mu = np.sqrt(np.maximum(1 - (self.distance * np.sin(angle)) ** 2, 0))
        from_middle = np.arccos(mu) - angle  # of the disk, as an angle at the Sun's centre
        across = np.sin(from_middle) / np.maximum(np.hypot(u, v), 1e-12)
        place = np.stack([west * across, north * across, np.cos(from_middle)])
        size = (self.distance * np.cos(angle) - mu) * (self.angular_radius / self.disk.radius * SOLAR_RADIUS * 100)
        return mu, place, size

    def to_heliographic(self, place: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Stonyhurst latitude and longitude, degrees, of places (3, ...); longitude in [-180, 180)."""
        x, y, z = place
        sine, cosine = math.sin(math.radians(self.b0)), math.cos(math.radians(self.b0))
        toward = z * cosine - y * sine
        latitude = np.degrees(np.arctan2(y * cosine + z * sine, np.hypot(x, toward)))
        longitude = np.degrees(np.arctan2(x, toward)) + self.longitude
        return latitude, (longitude + 180) % 360 - 180

    def to_pixel(self, place: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Column and row where places (3, ...) are seen."""
        x, y, z = place
        aside = np.hypot(x, y)
        scale = np.arctan2(aside, self.distance - z) / self.angular_radius * self.disk.radius / np.maximum(aside, 1e-12)
        turn = math.radians(self.disk.rotation)
        column = self.disk.x + scale * (x * math.cos(turn) + y * math.sin(turn))
        return column, self.disk.y + scale * (y * math.cos(turn) - x * math.sin(turn))


def view_of(image: Image) -> View:
    """How an image shows the Sun, by its header; what the header lacks, by its time for an observer at the Earth.

    Raises ReadError that names the file for a picture, and where neither says where the disk is or what B0 was.
    """
    name = image.path or "image"
    disk = disk_from_header(image.header) if image.full_scale is None else None
    if disk is None:
        raise ReadError(f"{name}: no header that tells where the solar disk is (CRPIX1, CRPIX2, CDELT1, RSUN_OBS)")
    b0 = header_number(image.header, "HGLT_OBS", "CRLT_OBS", "SOLAR_B0")
    arcseconds = header_number(image.header, "RSUN_OBS", "RSUN", "SOLAR_R")
    if b0 is None or arcseconds is None:
        try:
            earth = observer(to_days(instant(image.time)))
        except ArgumentError:
            raise ReadError(f"{name}: neither its header (HGLT_OBS, RSUN_OBS) nor a time tells B0") from None
        b0 = earth.b0 if b0 is None else b0
        arcseconds = earth.angular_radius if arcseconds is None else arcseconds
    # From Mercury's perihelion to Saturn; a radius beyond it is a mistake.
    if abs(b0) > 90 or not 80 < arcseconds < 3600:
        raise ReadError(f"{name}: its header tells B0 = {b0:g} degrees and a solar radius of {arcseconds:g} arcseconds")
    longitude = header_number(image.header, "HGLN_OBS") or 0.0
    return View(disk, b0, longitude, math.radians(arcseconds / 3600))
