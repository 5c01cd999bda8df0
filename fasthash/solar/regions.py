"""Magnetic regions of a full-disk magnetogram: where strong field covers the Sun, and how much of it there is.

The detection of Grycuk and Scherer (section 2.1) begins with a *magnetic region intensity image*, in which regions
stand out from the quiet Sun. Here it is the radial field, taken as B_los / mu, averaged over a Gaussian of 7 Mm (0.01
solar radii, 9.6 arcseconds), signed and in gauss. Field is strong where this exceeds 40 G of either sign. Pieces of
strong field within 17 Mm of each other are one region. So are two, each of one polarity alone, opposite and within
35 Mm: the halves of a bipole. A region covers at least 120 millionths of the hemisphere. Why these numbers:

- A Gaussian of 7 Mm (full width at half maximum 16 Mm, half a supergranule) averages most of the quiet network out:
  its field of either sign leaves 2 to 6 G (robust standard deviation) on HMI and MDI magnetograms, while plage has
  100 G and more (Schrijver and Harvey 1994, Solar Physics 150, 1). 40 G lies far from both.
- 2.5 square degrees, 121 millionths, divide active from ephemeral regions (Harvey and Zwaan 1993, Solar Physics
  148, 85).
- At 17 Mm the sunspot groups of the USAF/NOAA records stay apart on three magnetograms; at 24 Mm the first two of
  them merge (docs/solar.md). The halves of an old bipole may lie farther apart.
- Nearer than 15 degrees to the limb (mu < 0.26) B_los is mostly noise and horizontal field: no regions there.

Everything is measured on cells of about 1/120 of a solar radius (8 arcseconds, the pixel of a 256 x 256 frame), so that
frames of all sizes give comparable regions; finer structure, and flux that cancels within a cell, is not seen.
"""

import functools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from fasthash.errors import ArgumentError, ReadError
from fasthash.io import Image, as_image
from fasthash.solar.ephemeris import SOLAR_RADIUS
from fasthash.solar.heliographic import View, view_of
from fasthash.solar.magnetogram import Disk, mask_sky
from fasthash.times import format_time

SMOOTHING = 0.01  # solar radii; standard deviation of the Gaussian of the intensity image
THRESHOLD = 40.0  # G
MIN_AREA = 120.0  # millionths of the solar hemisphere
NEAR = 0.025  # solar radii, 17 Mm; pieces of strong field this close are one region, and opposite polarities touch
HALVES = 0.05  # solar radii, 35 Mm; regions of one polarity each, opposite and this close, are the halves of one
PURE = 0.95  # share of the area of such a half that has its polarity
LEAST_MU = math.cos(math.radians(75))

_CELLS = 120.0  # to a solar radius
_DISK_RADII = 50.0, 20_000.0  # pixels; below, the smallest regions are a pixel or two; above, a header is mistaken
_GAUSS = ("G", "GAUSS", "MX/CM^2", "MX/CM**2", "MX CM-2")  # a maxwell per square centimetre is one
_MSH_CM2 = 2e-6 * math.pi * (SOLAR_RADIUS * 100) ** 2


@dataclass(frozen=True, eq=False)
class Region:
    """One magnetic region; physical values are `astropy.units.Quantity` (``region.area.to("Mm2")``).

    number : 1 for the region of the largest unsigned flux, and so on.
    x, y : centroid of the unsigned flux, zero-based pixel of the file, column then row (rows run up as in FITS).
    latitude, longitude : the same, Stonyhurst heliographic, deg; longitude is positive in the west.
    area : of the solar surface, MSH (millionths of the solar hemisphere).
    positive_flux, negative_flux : Mx, of the radial field; the negative one is negative.
    peak_field : the radial field of its strongest pixel, G, with sign; smaller pixels show more of it.
    leading_polarity : +1 or -1, that of the part farther west; of a region with one polarity, that one.
    polarities_touch : whether pieces of opposite polarity lie within 17 Mm of each other.
    """

    number: int
    x: float
    y: float
    latitude: Any
    longitude: Any
    area: Any
    positive_flux: Any
    negative_flux: Any
    peak_field: Any
    leading_polarity: int
    polarities_touch: bool

    @property
    def unsigned_flux(self) -> Any:
        """Flux of both polarities without their signs, Mx."""
        return self.positive_flux - self.negative_flux

    @property
    def signed_flux(self) -> Any:
        """What is left of the flux when the polarities are added, Mx."""
        return self.positive_flux + self.negative_flux

    @property
    def leading_share(self) -> float:
        """Share of the unsigned flux that has the leading polarity; the rest is the following one's."""
        leading = self.positive_flux if self.leading_polarity > 0 else -self.negative_flux
        return float(leading / self.unsigned_flux)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON, each with its unit in its name."""
        return {
            "number": self.number,
            "x": self.x,
            "y": self.y,
            "latitude_deg": self.latitude.to_value("deg"),
            "longitude_deg": self.longitude.to_value("deg"),
            "area_msh": self.area.to_value(millionth_of_hemisphere()),
            "area_mm2": self.area.to_value("Mm2"),
            "unsigned_flux_mx": self.unsigned_flux.value,
            "signed_flux_mx": self.signed_flux.value,
            "positive_flux_mx": self.positive_flux.value,
            "negative_flux_mx": self.negative_flux.value,
            "peak_field_g": self.peak_field.value,
            "leading_polarity": self.leading_polarity,
            "leading_share": self.leading_share,
            "following_share": 1.0 - self.leading_share,
            "polarities_touch": self.polarities_touch,
        }


@functools.cache
def millionth_of_hemisphere() -> Any:
    """The unit MSH, a millionth of the solar hemisphere (3.04 Mm^2)."""
    from astropy import units as u

    return u.def_unit("MSH", _MSH_CM2 * u.cm**2, doc="millionth of the solar hemisphere")


@dataclass(frozen=True, eq=False)
class RegionTable(Sequence[Region]):
    """The regions of one magnetogram, strongest first, and the cells in which they were found.

    intensity : float32 (h, w), the magnetic region intensity image in G; NaN off the disk and where pixels are missing.
    labels : int32 (h, w), the number of the region that a cell belongs to, 0 for none.
    factor : pixels of the file along a side of a cell; cell (i, j) begins at pixel row i * factor, column j * factor.
    """

    image: Image = field(repr=False)
    disk: Disk
    intensity: NDArray[np.float32] = field(repr=False)
    labels: NDArray[np.int32] = field(repr=False)
    factor: int
    regions: tuple[Region, ...]

    def __len__(self) -> int:
        return len(self.regions)

    def __iter__(self) -> Iterator[Region]:
        return iter(self.regions)

    @overload
    def __getitem__(self, i: int) -> Region: ...

    @overload
    def __getitem__(self, i: slice) -> tuple[Region, ...]: ...

    def __getitem__(self, i: int | slice) -> Region | tuple[Region, ...]:
        return self.regions[i]

    def to_dict(self) -> dict[str, Any]:
        """Image, time (ISO 8601 UTC, "" where unknown) and regions as JSON can hold them."""
        regions = [region.to_dict() for region in self.regions]
        return {"image": self.image.path, "time": format_time(self.image.time), "regions": regions}


def find_regions(source: Any, threshold: float = THRESHOLD, min_area: float = MIN_AREA) -> RegionTable:
    """The magnetic regions of a full-disk magnetogram, strongest first; none at all is an answer too.

    ``source`` is an Image, a SunPy map or the path of a FITS file, in gauss, whose header tells the disk; ``threshold``
    (G) and ``min_area`` (millionths of the hemisphere) say what counts as a region. Missing pixels and what lies beyond
    75 degrees from the disk's centre belong to none. Raises ArgumentError, and ReadError that names the file for
    pictures (their grey has no unit), for another BUNIT than gauss, for disks of fewer than 50 or more than 20,000
    pixels in radius, for headers that do not tell where the disk is or from where it is seen, and where the disk has
    no valid pixel.
    """
    _check_number("threshold", threshold, 1e-3)
    _check_number("min_area", min_area, 0.0)
    image = as_image(source)
    full = view_of(image)
    name, (low, high) = image.path or "image", _DISK_RADII
    unit = str(image.header.get("BUNIT", "")).strip()
    if unit and unit.upper() not in _GAUSS:
        raise ReadError(f"{name}: its pixels are in {unit} (BUNIT), expected gauss")
    if not low <= full.disk.radius <= high:
        size = f"the solar disk is {full.disk.radius:.1f} pixels in radius"
        raise ReadError(f"{name}: {size}, expected {low:g} to {high:g}")
    pixels = mask_sky(image.pixels, full.disk)
    if not np.isfinite(pixels).any():
        raise ReadError(f"{name}: no valid pixel on the solar disk")
    factor = max(1, round(full.disk.radius / _CELLS))
    view = replace(full, disk=_in_cells(full.disk, factor))
    cells, positive, negative = _find_strong(pixels, view, factor, threshold)
    labels, n = _label(positive, negative, cells.area, min_area * _MSH_CM2, view.disk.radius)
    found = []
    for label in range(1, n + 1):
        inside = cells.where(labels == label)
        if inside.area.sum() >= min_area * _MSH_CM2 and inside.flux().any():
            found.append((label, _region(inside, view, factor)))
    found.sort(key=lambda item: -item[1].unsigned_flux.value)
    numbers = np.zeros(n + 1, np.int32)
    numbers[[label for label, _ in found]] = np.arange(1, len(found) + 1)
    regions = tuple(replace(region, number=i) for i, (_, region) in enumerate(found, start=1))
    return RegionTable(image, full.disk, cells.intensity, numbers[labels], factor, regions)


def _check_number(name: str, value: Any, low: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not low <= value < math.inf:
        raise ArgumentError(f"{name}: expected a number of at least {low:g}, got {value!r}")


@dataclass(frozen=True, eq=False)
class _Cells:
    """What is known of cells, those of an image or of one region; the last axes are the cells'.

    ``radial`` field, its mean in the ``intensity`` image and ``strongest`` pixel: G; ``area``: cm^2; ``place``:
    (3, ...) as in View; ``touching``: whether the cell is positive and strong negative field is near.
    """

    radial: NDArray[Any]
    intensity: NDArray[Any]
    strongest: NDArray[Any]
    area: NDArray[Any]
    place: NDArray[Any]
    touching: NDArray[np.bool_]

    def where(self, chosen: NDArray[np.bool_]) -> "_Cells":
        return _Cells(*(getattr(self, f.name)[..., chosen] for f in fields(self)))

    def flux(self) -> NDArray[np.float64]:
        return self.radial * self.area


def _find_strong(
    pixels: NDArray[np.float32], view: View, factor: int, threshold: float
) -> "tuple[_Cells, NDArray[np.bool_], NDArray[np.bool_]]":
    """The cells of an image, and which of them exceed the threshold, with positive and with negative field."""
    mean, extreme = _cells(pixels, factor)
    mu, place, size = view.surface(mean.shape)
    projection = np.maximum(mu, LEAST_MU)
    radial = mean / projection
    intensity = _smooth(radial, SMOOTHING * view.disk.radius)
    positive, negative = ((sign * intensity >= threshold) & (mu >= LEAST_MU) for sign in (1, -1))
    touching = positive & (_distance(negative) <= NEAR * view.disk.radius)
    cells = _Cells(radial, intensity, extreme / projection, size**2 / projection, place, touching)
    return cells, positive, negative


def _in_cells(disk: Disk, factor: int) -> Disk:
    """The disk in cells of ``factor`` x ``factor`` pixels."""
    x, y = ((centre + 0.5) / factor - 0.5 for centre in (disk.x, disk.y))
    return Disk(x, y, disk.radius / factor, disk.rotation)


def _cells(pixels: NDArray[np.float32], factor: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and strongest pixel of each cell; the mean is NaN where more than half of a cell is missing."""
    height, width = (-(-side // factor) for side in pixels.shape)
    blocks = np.full((height * factor, width * factor), np.nan, np.float32)
    blocks[: pixels.shape[0], : pixels.shape[1]] = pixels
    blocks = blocks.reshape(height, factor, width, factor)
    valid = np.isfinite(blocks)
    count = valid.sum(axis=(1, 3))
    blocks[~valid] = 0
    low, high = blocks.min(axis=(1, 3)), blocks.max(axis=(1, 3))
    mean = blocks.sum(axis=(1, 3)) / np.maximum(count, 1).astype(np.float32)
    return np.where(2 * count >= factor**2, mean, np.float32(np.nan)), np.where(high > -low, high, low)


def _smooth(field: NDArray[Any], sigma: float) -> NDArray[np.float32]:
    """Gaussian mean of the valid cells around each valid one; ``sigma`` in cells, whose own width is part of it."""
    from scipy import ndimage

    valid = np.isfinite(field)
    sigma = math.sqrt(max(sigma**2 - 1 / 12, 0.0))
    total = ndimage.gaussian_filter(np.where(valid, field, 0.0), sigma, mode="constant")
    weight = ndimage.gaussian_filter(valid.astype(np.float64), sigma, mode="constant")
    return np.where(valid, total / np.maximum(weight, 1e-9), np.nan).astype(np.float32)


def _distance(cells: NDArray[np.bool_]) -> NDArray[np.float64]:
    """From every cell to the nearest chosen one, in cells; infinite where none is chosen."""
    from scipy import ndimage

    return ndimage.distance_transform_edt(~cells) if cells.any() else np.full(cells.shape, np.inf)


def _label(
    positive: NDArray[np.bool_], negative: NDArray[np.bool_], area: NDArray[Any], min_area: float, radius: float
) -> tuple[NDArray[np.int32], int]:
    """Number the regions that strong cells of either sign make, 0 being none; and how many there are."""
    strong = positive | negative
    grown = _distance(strong) <= NEAR / 2 * radius
    labels, n = _number_pieces(grown, strong)
    plus, minus = (np.bincount(labels[part], area[part], n + 1) for part in (positive, negative))
    total = plus + minus
    to_plus, to_minus = (
        _distance(strong & ((total >= min_area) & (part >= PURE * total))[labels]) for part in (plus, minus)
    )
    # The cells on the straight ways from half to half, where these are short.
    return _number_pieces(grown | (to_plus + to_minus <= HALVES * radius), strong)


def _number_pieces(connected: NDArray[np.bool_], strong: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    from scipy import ndimage

    labels, n = ndimage.label(connected, np.ones((3, 3)))
    return np.where(strong, labels, 0).astype(np.int32), n


def _region(cells: _Cells, view: View, factor: int) -> Region:
    """One region from its cells, yet without its number."""
    from astropy import units as u
    from astropy.units import cgs

    flux = cells.flux()
    middle = _centroid(cells)
    latitude, longitude = view.to_heliographic(middle)
    x, y = ((centre + 0.5) * factor - 0.5 for centre in view.to_pixel(middle))
    return Region(
        number=0,
        x=float(x),
        y=float(y),
        latitude=float(latitude) * u.deg,
        longitude=float(longitude) * u.deg,
        area=cells.area.sum() / _MSH_CM2 * millionth_of_hemisphere(),
        positive_flux=float(flux[flux > 0].sum()) * cgs.Mx,
        negative_flux=float(flux[flux < 0].sum()) * cgs.Mx,
        peak_field=float(cells.strongest[np.argmax(np.abs(cells.strongest))]) * cgs.Gauss,
        leading_polarity=_leading_polarity(cells, view),
        polarities_touch=bool(cells.touching.any()),
    )


def _centroid(cells: _Cells) -> NDArray[np.float64]:
    """The place (3,) in the middle of the unsigned flux."""
    middle = cells.place @ np.abs(cells.flux())
    return middle / np.linalg.norm(middle)


def _leading_polarity(cells: _Cells, view: View) -> int:
    parts = {sign: cells.where(sign * cells.intensity > 0) for sign in (1, -1)}
    west = {sign: view.to_heliographic(_centroid(part))[1] for sign, part in parts.items() if part.area.size}
    if len(west) == 1:
        return next(iter(west))
    return 1 if (west[1] - west[-1] + 180) % 360 > 180 else -1


def draw_regions(table: RegionTable, path: str | os.PathLike[str]) -> None:
    """Draw the magnetogram with its regions outlined and numbered, as `fasthash.plots.magnetic_regions` does."""
    from fasthash import plots

    disk = table.disk
    when = format_time(table.image.time)[:16].replace("T", " ")
    n = len(table)
    title = "  ·  ".join(filter(None, [when, f"{n or 'no'} magnetic region{'s' * (n != 1)}"]))
    field = mask_sky(table.image.pixels, disk)
    plots.magnetic_regions(
        field,
        table.labels,
        path,
        cell=table.factor,
        disk=(disk.x, disk.y, disk.radius),
        rotation=disk.rotation,
        title=title,
    )
