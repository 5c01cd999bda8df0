"""A simulator of full-disk line-of-sight magnetograms: fast, and honest about being one.

The Sun is a bag of magnetic concentrations, each a place, a flux and a width: spots, which follow their active
region, and small elements of plage and of the quiet network, which live for two days each. A frame is all of them,
moved along by the Sun's rotation, projected and added up as Gaussians no narrower than a pixel, plus noise; so the
flux is the same at every image size. More physics is another source of concentrations beside `_spots` and `_elements`.

Every random number comes from a generator seeded by the seed and by what it is for (a region, two days of elements,
the noise of one instant): a frame is the same whichever others were made before.
"""

import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._storage import atomic_write
from fasthash._validation import check_int
from fasthash._version import __version__
from fasthash.errors import ArgumentError, FastHashError
from fasthash.solar.active_regions import ActiveRegions, read_active_regions, statistical_regions
from fasthash.solar.ephemeris import (
    LAST_YEAR,
    SOLAR_RADIUS,
    Observer,
    carrington_drift,
    instant,
    observer,
    to_days,
)
from fasthash.times import tai_minus_utc

FIELD_OF_VIEW = 4096 * 0.504  # arcseconds across the image, as HMI
SATURATION = 3200.0  # G; the strongest field that the simulated instrument can measure
_RADIUS_CM = SOLAR_RADIUS * 100
_DEGREE_CM = np.radians(1) * _RADIUS_CM
_MSH_CM2 = 2e-6 * np.pi * _RADIUS_CM**2  # one millionth of the solar hemisphere
_PIXEL_BLUR = 0.5  # pixels; about the blur of averaging over a pixel

ELEMENT_LIFE = 2.0  # days
NETWORK_ELEMENTS, NETWORK_CELLS = 40_000, 8_000  # on the whole Sun
LEADING_SPOTS, FOLLOWING_SPOTS = (0.45, 0.10, 0.05), (0.18, 0.12, 0.07, 0.03)  # shares of the spot area


@dataclass(frozen=True)
class FieldModel:
    """How strong and how wide the simulated field is; the defaults look like HMI's.

    ``network_flux`` (Mx) and ``network_sigma``: median and spread of the log-normal fluxes of network elements.
    ``plage_flux``: Mx, mean of the exponential of plage elements. ``plage_field``: G, mean over the plage of one
    polarity when it is new. ``diffusion``: cm^2/s, of elements by supergranulation. ``spot_field``: G, mean over the
    area of a spot.
    """

    network_flux: float = 3.0e18
    network_sigma: float = 1.0
    plage_flux: float = 3.0e19
    plage_field: float = 200.0
    diffusion: float = 250e10
    spot_field: float = 1200.0

    @classmethod
    def random(cls, rng: np.random.Generator, spread: float = 0.35) -> "FieldModel":
        """Another Sun: every default times a log-normal factor of that ``spread``."""
        return cls(*(field.default * np.exp(rng.normal(0, spread)) for field in fields(cls)))


@dataclass(frozen=True)
class _Blobs:
    """Magnetic concentrations, float32 (n,): latitude and Carrington longitude (degrees), flux (Mx), sigma (cm)."""

    latitude: NDArray[np.float32]
    longitude: NDArray[np.float32]
    flux: NDArray[np.float32]
    width: NDArray[np.float32]

    @classmethod
    def of(cls, *columns: NDArray[np.floating]) -> "_Blobs":
        return cls(*(column.ravel().astype(np.float32) for column in columns))

    @classmethod
    def join(cls, parts: list["_Blobs"]) -> "_Blobs":
        names = ("latitude", "longitude", "flux", "width")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class _Elements:
    """Two days' worth of small concentrations; each is born at ``birth`` and placed where it is then."""

    blobs: _Blobs
    birth: NDArray[np.float64]
    drift: NDArray[np.float32]

    def at(self, days: float) -> _Blobs:
        live = np.flatnonzero((self.birth < days) & (days < self.birth + ELEMENT_LIFE))
        age, blobs = (days - self.birth[live]).astype(np.float32), self.blobs
        # The square of a sine has the mean 1/2, so twice of it keeps the total flux.
        flux = blobs.flux[live] * 2 * np.sin(age * np.float32(np.pi / ELEMENT_LIFE)) ** 2
        longitude = blobs.longitude[live] + self.drift[live] * age
        return _Blobs(blobs.latitude[live], longitude, flux, blobs.width[live])


def _width(flux: NDArray[np.float64], peak: Any) -> NDArray[np.float64]:
    """Sigma (cm) of a Gaussian spot of a flux and a peak field."""
    return np.sqrt(np.abs(flux) / (2 * np.pi * peak))


def _network(rng: np.random.Generator, model: FieldModel) -> tuple[NDArray[np.float64], ...]:
    """Quiet network: latitude, longitude and flux of elements of either sign on the rims of supergranules."""
    cell = rng.integers(0, NETWORK_CELLS, NETWORK_ELEMENTS)
    latitude = np.degrees(np.arcsin(rng.uniform(-1, 1, NETWORK_CELLS)))[cell]
    longitude = rng.uniform(0, 360, NETWORK_CELLS)[cell]
    angle = rng.uniform(0, 2 * np.pi, NETWORK_ELEMENTS)
    longitude += 1.2 * np.cos(angle) / np.maximum(np.cos(np.radians(latitude)), 0.02)
    latitude = np.clip(latitude + 1.2 * np.sin(angle), -90, 90)
    flux = rng.lognormal(np.log(model.network_flux), model.network_sigma, NETWORK_ELEMENTS)
    return latitude, longitude, flux * rng.choice([-1.0, 1.0], NETWORK_ELEMENTS)


def _place(regions: ActiveRegions, i: Any, days: float, along: Any, across: Any) -> tuple[Any, Any]:
    """Latitude and longitude at a time of points in the frames of regions ``i``: degrees west and north of the middle.

    Turned by the tilt (Joy's law: mirrored between the hemispheres) and carried by the rotation at their latitude.
    """
    middle, tilt = regions.latitude[i], np.radians(regions.tilt[i])
    side = np.where(middle < 0, -1.0, 1.0)
    latitude = np.clip(middle + side * (across * np.cos(tilt) - along * np.sin(tilt)), -90, 90)
    west = (along * np.cos(tilt) + across * np.sin(tilt)) / np.cos(np.radians(np.clip(middle, -80, 80)))
    return latitude, regions.longitude[i] + west + carrington_drift(latitude) * (days - regions.reference[i])


def _elements_per_polarity(flux: float, model: FieldModel) -> int:
    return max(1, int(np.ceil(flux / 2 / model.plage_flux)))


def _plage(
    regions: ActiveRegions, i: int, flux: float, area: float, days: float, rng: np.random.Generator, model: FieldModel
) -> tuple[NDArray[np.float64], ...]:
    """Plage of one region: the flux that is not in its spots, in elements that spread as the region ages."""
    n = _elements_per_polarity(flux, model)
    sign = np.repeat([1.0, -1.0], n)  # +1: leading
    in_spots = model.spot_field * _MSH_CM2 * area * np.repeat([sum(LEADING_SPOTS), sum(FOLLOWING_SPOTS)], n)
    share = rng.exponential(size=2 * n)
    share /= np.repeat(np.add.reduceat(share, [0, n]), n)
    radius2 = flux / 2 / model.plage_field / np.pi + 2 * model.diffusion * 86400 * (days - regions.birth[i])
    spread = np.sqrt(radius2) / 1.8 / _DEGREE_CM * np.where(sign > 0, 1.0, 1.25)  # the leading side is more compact
    along = sign * regions.separation[i] / 2 + rng.normal(size=2 * n) * spread
    latitude, longitude = _place(regions, i, days, along, rng.normal(size=2 * n) * spread)
    return latitude, longitude, regions.polarity[i] * sign * share * np.maximum(flux / 2 - in_spots, 0.1 * flux)


@functools.lru_cache(maxsize=8)
def _elements(regions: ActiveRegions, epoch: int, seed: int, model: FieldModel) -> _Elements:
    """Elements born in the ``epoch``-th span of two days: network, and plage of the regions alive then."""
    rng = np.random.default_rng([seed, 1, epoch])
    parts, birth = [_network(rng, model)], [(epoch + rng.random(NETWORK_ELEMENTS)) * ELEMENT_LIFE]
    middle = (epoch + 1.0) * ELEMENT_LIFE  # when most of them are in full strength
    for i, area, flux in zip(*regions.at(middle), strict=True):
        rng = np.random.default_rng([seed, 2, epoch, int(regions.key[i])])
        born = (epoch + rng.random(2 * _elements_per_polarity(flux, model))) * ELEMENT_LIFE
        latitude, longitude, field = _plage(regions, i, flux, area, middle, rng, model)
        longitude = longitude + carrington_drift(latitude) * (born - middle)
        parts.append((latitude, longitude, field))
        birth.append(born)
    latitude, longitude, flux = (np.concatenate(column) for column in zip(*parts, strict=True))
    peak = np.where(np.arange(len(flux)) < NETWORK_ELEMENTS, 150.0, 400.0)
    blobs = _Blobs.of(latitude, longitude % 360, flux, _width(flux, peak))
    return _Elements(blobs, np.concatenate(birth), carrington_drift(latitude).astype(np.float32))


@functools.lru_cache(maxsize=4)
def _spot_pattern(regions: ActiveRegions, seed: int) -> NDArray[np.float64]:
    """Share of the area, sideways offset along and across (units of the plage's extent) of each spot: (3, n, spots)."""
    shares = np.array(LEADING_SPOTS + FOLLOWING_SPOTS)
    pattern = np.empty((3, len(regions), len(shares)))
    for i, key in enumerate(regions.key):
        rng = np.random.default_rng([seed, 3, int(key)])
        share = shares * rng.lognormal(0, 0.4, len(shares))
        pattern[0, i] = share / share.sum()
        pattern[1:, i] = rng.normal(size=(2, len(shares))) * np.where(shares > 0.15, 0.1, 0.5)
    return pattern


def _spots(regions: ActiveRegions, days: float, seed: int, model: FieldModel) -> _Blobs:
    """The sunspots of a moment."""
    i, area, flux = regions.at(days)
    i, area, flux = i[area > 0, None], area[area > 0, None], flux[area > 0, None]
    share, along, across = _spot_pattern(regions, seed)[:, i[:, 0]]
    sign = np.repeat([1.0, -1.0], [len(LEADING_SPOTS), len(FOLLOWING_SPOTS)])
    radius = np.sqrt(flux / 2 / model.plage_field / np.pi) / _DEGREE_CM
    # Polarities move apart while a region is young.
    apart = regions.separation[i] / 2 * np.clip(0.4 + 0.2 * (days - regions.birth[i]), 0, 1)
    latitude, longitude = _place(regions, i, days, sign * apart + along * radius, across * radius)
    field = regions.polarity[i] * sign * share * area * (_MSH_CM2 * model.spot_field)
    peak = np.clip(1300 + 500 * np.log10(1 + share * area), 1300, 2800)
    return _Blobs.of(latitude, longitude % 360, field, _width(field, peak))


def _disk(size: int, seen: Observer) -> tuple[NDArray[np.bool_], float]:
    """Which pixels of an image show the Sun, and the width of a pixel in radians."""
    pixel = math.radians(FIELD_OF_VIEW / 3600) / size
    offset2 = ((np.arange(size) - (size - 1) / 2) * pixel) ** 2
    edge = 1 / ((seen.distance / SOLAR_RADIUS) ** 2 - 1)  # tan^2 of the apparent radius
    return np.asarray(offset2[:, None] + offset2 <= edge), pixel


def _project(blobs: _Blobs, days: float, size: int) -> NDArray[np.float32]:
    """Line-of-sight field (G) of radial concentrations, (size, size), north up, west to the right."""
    seen = observer(days)
    disk, pixel = _disk(size, seen)
    distance = seen.distance / SOLAR_RADIUS
    lat, lon = np.radians(blobs.latitude), np.radians(blobs.longitude - seen.l0)
    cos_lat, sin_lat = np.cos(lat), np.sin(lat)
    cos_b0, sin_b0 = math.cos(math.radians(seen.b0)), math.sin(math.radians(seen.b0))
    toward = cos_lat * np.cos(lon)
    # Unit vectors: x west, y north in the sky, z to the observer.
    x, y = cos_lat * np.sin(lon), sin_lat * cos_b0 - toward * sin_b0
    z = sin_lat * sin_b0 + toward * cos_b0
    front = z > 1 / distance + 0.02  # the last degree before the limb shows next to no field along the line of sight
    x, y, z, flux, width = x[front], y[front], z[front], blobs.flux[front], blobs.width[front]
    away = distance - z
    mu = (distance * z - 1) / np.sqrt(x * x + y * y + away * away)
    column, row = (c / (away * pixel) + (size - 1) / 2 for c in (x, y))
    pixel_cm = pixel * away * _RADIUS_CM
    # A round concentration looks like an ellipse that is narrow along the radius of the disk; the pixel blurs it.
    sigma = width / pixel_cm
    tangential, radial = np.hypot(sigma, _PIXEL_BLUR), np.hypot(sigma * mu, _PIXEL_BLUR)
    # One mu is the projection of the field, the other that of the area.
    peak = flux * mu * mu / (2 * math.pi * tangential * radial * pixel_cm**2)
    rho = np.maximum(np.hypot(x, y), np.float32(1e-12))
    image = _add_gaussians(size, column, row, peak, tangential, radial, x / rho, y / rho)
    np.clip(image, -SATURATION, SATURATION, out=image)
    image[~disk] = np.nan
    return image


def _add_gaussians(
    size: int, column: Any, row: Any, peak: Any, tangential: Any, radial: Any, ux: Any, uy: Any
) -> NDArray[np.float32]:
    """Sum of elliptic Gaussians; sigma ``radial`` pixels along the unit vector (ux, uy), ``tangential`` across it."""
    reach = np.maximum(1, np.rint(2.5 * tangential)).astype(np.int64)  # half the side of the square each one covers
    margin = int(reach.max(initial=1)) + 1
    side = size + 2 * margin
    canvas = np.zeros(side * side, dtype=np.float32)
    nearest_column, nearest_row = np.rint(column).astype(np.int64), np.rint(row).astype(np.int64)
    extra = radial**-2 - tangential**-2
    shape = -0.5 * np.stack([tangential**-2 + ux * ux * extra, tangential**-2 + uy * uy * extra, 2 * ux * uy * extra])
    values = [column - nearest_column.astype(np.float32), row - nearest_row.astype(np.float32), peak, *shape]
    corner = (nearest_row + margin) * side + nearest_column + margin
    for r in np.unique(reach):  # those of one reach together, since their squares are of one size
        chosen = np.flatnonzero(reach == r)
        across, up, height, xx, yy, xy = (v[chosen, None, None] for v in values)
        step = np.arange(-r, r + 1)
        dx, dy = step.astype(np.float32) - across, step[:, None].astype(np.float32) - up
        patch = height * np.exp(xx * dx * dx + (yy * dy + xy * dx) * dy)
        index = corner[chosen, None, None] + (step[:, None] * side + step)
        np.add.at(canvas, index.ravel(), patch.ravel())
    inner = slice(margin, margin + size)
    return canvas.reshape(side, side)[inner, inner].copy()


def render(
    regions: ActiveRegions,
    time: Any,
    size: int = 256,
    seed: int = 0,
    noise: float = 8.0,
    model: FieldModel = FieldModel(),
) -> NDArray[np.float32]:
    """One magnetogram: float32 (size, size), gauss, NaN off the disk; north up, west right, row 0 in the south.

    ``time`` is ISO 8601 UTC (or a datetime); ``noise`` is the standard deviation (G) of every pixel's own, ``model``
    the strength of everything else. The frame depends on the arguments alone, never on frames made before.
    Raises ArgumentError.
    """
    when = instant(time)
    check_int("size", size, 16, 8192)
    check_int("seed", seed, 0)
    if not (np.isfinite(noise) and noise >= 0):
        raise ArgumentError(f"noise: expected a number of gauss of at least 0, got {noise!r}")
    days = to_days(when)
    epoch = int(days // ELEMENT_LIFE)
    parts = [_elements(regions, e, seed, model).at(days) for e in (epoch - 1, epoch)]
    image = _project(_Blobs.join([*parts, _spots(regions, days, seed, model)]), days, size)
    rng = np.random.default_rng([seed, 4, round(days * 86_400_000)])
    image += np.float32(noise) * rng.standard_normal(image.shape, dtype=np.float32)
    return image


def _tai(when: datetime) -> datetime:
    """TAI of a UTC instant, leap seconds and all."""
    shift: timedelta = tai_minus_utc(np.datetime64(when, "ms")).astype(timedelta)
    return when + shift


def file_name(time: Any) -> str:
    """Name of the simulated file of an instant: ``hmi.sim_720s.YYYYMMDD_HHMMSS_TAI.fits``, as T_REC says, in TAI."""
    return f"hmi.sim_720s.{_tai(instant(time)):%Y%m%d_%H%M%S}_TAI.fits"


def _header(when: datetime, size: int, seed: int | None) -> dict[str, Any]:
    seen, tai = observer(to_days(when)), _tai(when)
    stamp = f"{tai:%Y.%m.%d_%H:%M:%S}.{tai.microsecond // 1000:03d}_TAI"
    scale, middle = FIELD_OF_VIEW / size, (size + 1) / 2
    return {
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
        "CROTA2": 0.0,
        "RSUN_OBS": (seen.angular_radius, "arcsec"),
        "RSUN_REF": (SOLAR_RADIUS, "m"),
        "DSUN_OBS": (seen.distance, "m"),
        "HGLN_OBS": 0.0,
        "HGLT_OBS": seen.b0,
        "CRLN_OBS": seen.l0,
        "CRLT_OBS": seen.b0,
    }


def write_fits(path: str | os.PathLike[str], image: NDArray[np.float32], time: Any, seed: int | None = None) -> None:
    """Write a simulated magnetogram, (n, n) in gauss and NaN off the disk, as FITS that SunPy opens as an HMIMap.

    Pixels are float32, since SunPy does not turn the BLANK of integers into NaN. The header says SIMULATED, by which
    version of fasthash and with which seed. The file appears whole or not at all. Raises ArgumentError, FastHashError
    where it cannot be written.
    """
    from astropy.io import fits

    when = instant(time)
    image = np.asarray(image)
    if image.ndim != 2 or image.shape[0] != image.shape[1]:
        raise ArgumentError(f"image: expected shape (n, n), got {image.shape}")
    hdu = fits.PrimaryHDU(image.astype(">f4"))
    hdu.header.update(_header(when, image.shape[0], seed))
    hdu.header["COMMENT"] = f"SIMULATED magnetogram, made by fasthash {__version__}; not an observation"
    with atomic_write(path) as file:
        hdu.writeto(file)


def simulate(
    out_dir: str | os.PathLike[str],
    start: Any,
    days: float,
    cadence_minutes: float,
    size: int = 256,
    active_regions: ActiveRegions | str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Simulate the Sun from ``start`` (ISO 8601 UTC) for ``days``, a frame every ``cadence_minutes``, as FITS files.

    ``active_regions`` is a table of real ones (a path, or what `read_active_regions` returned); None draws them
    (`statistical_regions`). ``progress(done, total)`` is called after every frame. Returns the paths, whose names
    sort by time. The same arguments give the same files, and a frame does not depend on start, days or cadence.
    Raises ArgumentError, ReadError for a bad table, FastHashError where nothing can be written.
    """
    first = instant(start, "start")
    for name, value in (("days", days), ("cadence_minutes", cadence_minutes)):
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < np.inf:
            raise ArgumentError(f"{name}: expected a positive number, got {value!r}")
    if cadence_minutes * 60 < 1:
        raise ArgumentError(f"cadence_minutes: expected at least a second, got {cadence_minutes!r}")
    if to_days(first) + days > to_days(datetime(LAST_YEAR, 12, 31)):
        raise ArgumentError(f"days: expected an end before {LAST_YEAR}-12-31, got {days!r} days from {start}")
    check_int("size", size, 16, 8192)
    check_int("seed", seed, 0)
    if active_regions is None:
        active_regions = statistical_regions(first, days, seed)
    elif not isinstance(active_regions, ActiveRegions):
        active_regions = read_active_regions(active_regions, seed)
    folder = Path(out_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FastHashError(f"{folder}: cannot make this folder: {error.strerror}") from error
    total = int(np.ceil(round(days * 1440 / cadence_minutes, 6)))
    paths = []
    for i in range(total):
        when = first + timedelta(milliseconds=round(i * cadence_minutes * 60_000))
        paths.append(folder / file_name(when))
        write_fits(paths[-1], render(active_regions, when, size, seed), when, seed)
        if progress:
            progress(i + 1, total)
    return paths
