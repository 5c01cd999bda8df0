"""A simulator of full-disk line-of-sight magnetograms: fast, and honest about being one.

The Sun is a bag of magnetic concentrations, each a place, a flux and a width: spots, which follow their active
region, and small elements of plage and of the quiet network, which live for two days each. A frame is all of them,
moved along by the Sun's rotation, projected and added up as Gaussians no narrower than a pixel, plus noise; so the
flux is the same at every image size. Plage spreads by supergranular diffusion and drifts to the poles (`ephemeris`);
where regions stand, and how they grow and decay, is said in `active_regions`. More physics is another source of
concentrations beside `_spots` and `_elements`. How like the Sun the frames are, `fasthash.solar.compare` measures.

Every random number comes from a generator seeded by the seed and by what it is for (a region, two days of elements,
the noise of one instant): a frame is the same whichever others were made before.
"""

import ctypes
import functools
import math
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._machine_code import machine_code
from fasthash._validation import check_int
from fasthash.errors import ArgumentError, FastHashError
from fasthash.solar.active_regions import ActiveRegions, read_active_regions, statistical_regions
from fasthash.solar.ephemeris import (
    LAST_YEAR,
    SOLAR_RADIUS,
    Observer,
    carrington_drift,
    instant,
    meridional_drift,
    observer,
    to_days,
)
from fasthash.solar.frame_file import FIELD_OF_VIEW, file_name, write_fits

SATURATION = 3200.0  # G; the strongest field that the simulated instrument can measure
_RADIUS_CM = SOLAR_RADIUS * 100
_DEGREE_CM = np.radians(1) * _RADIUS_CM
_MSH_CM2 = 2e-6 * np.pi * _RADIUS_CM**2  # one millionth of the solar hemisphere
_WRITERS = 4  # threads
LIMB_NOISE = 0.5  # by which the noise grows from the middle of the disk to the limb

ELEMENT_LIFE = 2.0  # days
NETWORK_ELEMENTS, NETWORK_CELLS = 40_000, 8_000  # on the whole Sun
NETWORK_LARGEST = 2e20  # Mx; a wide log-normal would make elements as large as regions
SAME_SIGN = 0.7  # of a network cell's elements
CLUMP, CLUMP_DEGREES = 6, 0.5  # elements of plage a clump, and how far they lie from its middle
NETWORK_PEAK, PLAGE_PEAK = 90.0, 300.0  # G, in the middle of an element
LEADING_SPOTS, FOLLOWING_SPOTS = (0.45, 0.10, 0.05), (0.18, 0.12, 0.07, 0.03)  # shares of the spot area


@dataclass(frozen=True)
class FieldModel:
    """How strong and how wide the simulated field is.

    The defaults, and the peaks above, were fitted to the histograms of two HMI frames, of 2011-12-17 and 2016-07-07,
    averaged to 128, 256 and 512 pixels, while the regions were those of the days (`fasthash.solar.compare`).

    ``network_flux`` (Mx) and ``network_sigma``: median and spread of the log-normal fluxes of network elements.
    ``plage_flux``: Mx, mean of the exponential of plage elements. ``plage_field``: G, mean over the plage of one
    polarity when it is new. ``diffusion``: cm^2/s, of elements by supergranulation, as in models of the transport of
    flux (Sheeley 2005, Living Reviews in Solar Physics 2, 5). ``spot_field``: G, mean over the area of a spot.
    """

    network_flux: float = 3.3e18
    network_sigma: float = 1.1
    plage_flux: float = 1.4e19
    plage_field: float = 190.0
    diffusion: float = 250e10
    spot_field: float = 1200.0

    @classmethod
    def random(cls, rng: np.random.Generator, spread: float = 0.35) -> "FieldModel":
        """Another Sun: every default times a log-normal factor of that ``spread``."""
        return cls(*(field.default * np.exp(rng.normal(0, spread)) for field in fields(cls)))


@dataclass(frozen=True)
class _Concentrations:
    """Magnetic concentrations as the kernel takes them (`_drawing.draw`), in the order of their birth.

    ``field``: float32 (7, n). ``start``: days since 1950, from which births count. ``life``: days; 0 for ever.
    """

    field: NDArray[np.float32]
    start: float = 0.0
    life: float = 0.0

    @classmethod
    def at(
        cls,
        latitude: NDArray[np.float64],
        longitude: NDArray[np.float64],
        flux: NDArray[np.float64],
        peak: NDArray[np.float64],
        birth: NDArray[np.float64] | None = None,
        start: float = 0.0,
    ) -> "_Concentrations":
        """From places (degrees, Carrington) at birth, fluxes (Mx) and peak fields (G) of Gaussians; all (n,)."""
        life = 0.0 if birth is None else ELEMENT_LIFE
        drift = np.zeros(1) if birth is None else np.radians(carrington_drift(latitude))
        lat, lon = (np.radians(angle).astype(np.float32) for angle in (latitude, longitude))
        gauss = flux / _RADIUS_CM**2
        width = np.sqrt(np.abs(gauss) / (2 * np.pi * peak))
        born = np.zeros(1) if birth is None else birth - start
        rows = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat), drift, born, gauss, width
        field = np.stack(np.broadcast_arrays(*rows)).astype(np.float32)
        return cls(np.ascontiguousarray(field[:, np.argsort(field[4], kind="stable")]), start, life)

    def live(self, days: float) -> tuple[int, int]:
        """First and last, plus one, of those that are there at a time."""
        if not self.life:
            return 0, self.field.shape[1]
        births, now = self.field[4], np.float32(days - self.start)
        return int(np.searchsorted(births, now - np.float32(self.life))), int(np.searchsorted(births, now))


def _network(rng: np.random.Generator, model: FieldModel) -> tuple[NDArray[np.float64], ...]:
    """Quiet network: latitude, longitude and flux of elements of either sign on the rims of supergranules."""
    cell = rng.integers(0, NETWORK_CELLS, NETWORK_ELEMENTS)
    latitude = np.degrees(np.arcsin(rng.uniform(-1, 1, NETWORK_CELLS)))[cell]
    longitude = rng.uniform(0, 360, NETWORK_CELLS)[cell]
    angle = rng.uniform(0, 2 * np.pi, NETWORK_ELEMENTS)
    longitude += 1.2 * np.cos(angle) / np.maximum(np.cos(np.radians(latitude)), 0.02)
    latitude = np.clip(latitude + 1.2 * np.sin(angle), -90, 90)
    flux = rng.lognormal(np.log(model.network_flux), model.network_sigma, NETWORK_ELEMENTS)
    flux = np.minimum(flux, NETWORK_LARGEST)
    own = rng.choice([-1.0, 1.0], NETWORK_CELLS)[cell]  # a cell has a sign that most of its elements share
    return latitude, longitude, flux * np.where(rng.random(NETWORK_ELEMENTS) < SAME_SIGN, own, -own)


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
    # Clumps on the rims of supergranules, as in the network; a few far away from the rest.
    clumps = max(1, n // CLUMP)
    clump = rng.integers(0, clumps, 2 * n) + np.where(sign > 0, 0, clumps)
    middles = rng.normal(size=(2, 2 * clumps)) * rng.choice([0.8, 2.0], 2 * clumps, p=[0.8, 0.2])
    along, across = middles[:, clump] * spread + rng.normal(0, CLUMP_DEGREES, (2, 2 * n))
    latitude, longitude = _place(regions, i, days, along + sign * regions.separation[i] / 2, across)
    # The flow towards the poles takes along what has left the spots, which are rooted deeper and stay.
    drift = meridional_drift(latitude) * (days - regions.reference[i])
    longitude += (carrington_drift(latitude + drift / 2) - carrington_drift(latitude)) * (days - regions.reference[i])
    return latitude + drift, longitude, regions.polarity[i] * sign * share * np.maximum(flux / 2 - in_spots, 0.1 * flux)


@functools.lru_cache(maxsize=8)
def _elements(regions: ActiveRegions, epoch: int, seed: int, model: FieldModel) -> _Concentrations:
    """Elements born in the ``epoch``-th span of two days: network, and plage of the regions alive then."""
    rng = np.random.default_rng([seed, 1, epoch])
    parts, birth = [_network(rng, model)], [(epoch + np.sort(rng.random(NETWORK_ELEMENTS))) * ELEMENT_LIFE]
    middle = (epoch + 1.0) * ELEMENT_LIFE  # when most of them are in full strength
    for i, area, flux in zip(*regions.at(middle), strict=True):
        rng = np.random.default_rng([seed, 2, epoch, int(regions.key[i])])
        born = (epoch + np.sort(rng.random((2, _elements_per_polarity(flux, model)))).ravel()) * ELEMENT_LIFE
        latitude, longitude, field = _plage(regions, i, flux, area, middle, rng, model)
        longitude = longitude + carrington_drift(latitude) * (born - middle)
        parts.append((latitude, longitude, field))
        birth.append(born)
    latitude, longitude, flux = (np.concatenate(column) for column in zip(*parts, strict=True))
    peak = np.where(np.arange(len(flux)) < NETWORK_ELEMENTS, NETWORK_PEAK, PLAGE_PEAK)
    return _Concentrations.at(latitude, longitude, flux, peak, np.concatenate(birth), epoch * ELEMENT_LIFE)


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


def _spots(regions: ActiveRegions, days: float, seed: int, model: FieldModel) -> _Concentrations:
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
    return _Concentrations.at(*(column.ravel() for column in (latitude, longitude, field, peak)))


@functools.cache
def _draw() -> Callable[..., None]:
    """The kernel `_drawing.draw`."""

    def compile_it() -> tuple[str, str]:
        from fasthash.solar._drawing import compile_draw

        return compile_draw()

    at, index, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    arguments = (at, index, index, index, *[real] * 10, at, index)
    return machine_code("draw", Path(__file__).with_name("_drawing.py"), compile_it, arguments)


def _turn(rotation: float) -> tuple[float, float]:
    """Cosine and sine of a rotation in degrees, exact for the multiples of 90."""
    if rotation % 90 == 0:
        return [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)][round(rotation / 90) % 4]
    return math.cos(math.radians(rotation)), math.sin(math.radians(rotation))


def _project(parts: list[_Concentrations], days: float, size: int, rotation: float) -> NDArray[np.float32]:
    """Line-of-sight field (G) of radial concentrations, (size, size); at a ``rotation`` of 0 north up, west right."""
    seen = observer(days)
    pixel = math.radians(FIELD_OF_VIEW / 3600) / size
    l0, b0 = math.radians(seen.l0), math.radians(seen.b0)
    view = math.cos(l0), math.sin(l0), math.cos(b0), math.sin(b0), *_turn(rotation), seen.distance / SOLAR_RADIUS, pixel
    image = np.zeros((size, size), np.float32)
    for part in parts:
        field, (first, last) = part.field, part.live(days)
        now = days - part.start
        _draw()(
            field.ctypes.data, field.shape[1], first, last, now, part.life, *view, image.ctypes.data, size
        )  # fmt: skip
    return np.clip(image, -SATURATION, SATURATION, out=image)


def _nearness(size: int, seen: Observer) -> NDArray[np.float32]:
    """Cosine of the heliocentric angle in every pixel, 1 in the middle of the disk and 0 at the limb; NaN off it."""
    radius = seen.angular_radius / (FIELD_OF_VIEW / size)
    offset2 = (((np.arange(size) - (size - 1) / 2) / radius) ** 2).astype(np.float32)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(1 - offset2[:, None] - offset2))


def _lose_blocks(image: NDArray[np.float32], share: float, rng: np.random.Generator) -> None:
    """Turn this share of the disk's pixels into NaN, in blocks of rows as lost telemetry leaves them."""
    size = len(image)
    wanted = round(share * np.count_nonzero(np.isfinite(image)))
    while wanted > 0:
        height, width = rng.integers(1, size // 8 + 1), rng.integers(size // 8, size + 1)
        top, left = rng.integers(0, size), rng.integers(-width, size)
        block = image[top : top + height, max(left, 0) : max(left + width, 0)]
        rows, columns = np.nonzero(np.isfinite(block))
        block[rows[:wanted], columns[:wanted]] = np.nan
        wanted -= len(rows)


def instrument_noise(size: int) -> float:
    """Standard deviation (G) of a pixel's own field in the middle of the disk, for an HMI frame averaged to ``size``.

    6.3 G at full size (Liu et al. 2012, Solar Physics 279, 295), 1.8 G at 256 pixels. Independent noise would fall to
    0.4 G there. But that of HMI is not, and much of what is left is the mixed field between the elements of the
    network, which no pixel resolves: two real frames, averaged to 128 to 512 pixels, gave the power.
    """
    return 6.3 * (size / 4096) ** 0.45


def render(
    regions: ActiveRegions,
    time: Any,
    size: int = 256,
    seed: int = 0,
    noise: float | None = None,
    model: FieldModel = FieldModel(),
    rotation: float = 0.0,
    missing: float = 0.0,
) -> NDArray[np.float32]:
    """One magnetogram: float32 (size, size), gauss, NaN off the disk.

    ``time`` is ISO 8601 UTC (or a datetime). ``noise`` (G) is the standard deviation of every pixel's own in the middle
    of the disk; it grows by half towards the limb; None: `instrument_noise`. ``model`` is the strength of everything
    else. ``rotation`` (degrees) is CROTA2: how far solar north is turned from up to the right; at 0 it is up, west
    right and row 0 in the south; HMI delivers 180. ``missing``: share of the disk that is lost, as NaN in blocks. The
    frame depends on the arguments alone, never on frames made before. Raises ArgumentError.
    """
    when = instant(time)
    check_int("size", size, 16, 8192)
    check_int("seed", seed, 0)
    noise = instrument_noise(size) if noise is None else noise
    if not (np.isfinite(noise) and noise >= 0):
        raise ArgumentError(f"noise: expected a number of gauss of at least 0, got {noise!r}")
    _check_frame(rotation, missing)
    days = to_days(when)
    epoch = int(days // ELEMENT_LIFE)
    parts = [_elements(regions, e, seed, model) for e in (epoch - 1, epoch)]
    image = _project([*parts, _spots(regions, days, seed, model)], days, size, rotation)
    rng = np.random.default_rng([seed, 4, round(days * 86_400_000)])
    nearness = _nearness(size, observer(days))
    deviation = np.float32(noise) * (1 + np.float32(LIMB_NOISE) * (1 - nearness))  # NaN off the disk
    image += deviation * rng.standard_normal(image.shape, dtype=np.float32)
    if missing:
        _lose_blocks(image, missing, rng)
    return image


def _check_frame(rotation: float, missing: float) -> None:
    for name, value, low, high in (("rotation", rotation, -360, 360), ("missing", missing, 0, 0.9)):
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not low <= value <= high:
            raise ArgumentError(f"{name}: expected a number in [{low}, {high}], got {value!r}")


def simulate(
    out_dir: str | os.PathLike[str],
    start: Any,
    days: float,
    cadence_minutes: float,
    size: int = 256,
    active_regions: ActiveRegions | str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    rotation: float = 0.0,
    missing: float = 0.0,
) -> list[Path]:
    """Simulate the Sun from ``start`` (ISO 8601 UTC) for ``days``, a frame every ``cadence_minutes``, as FITS files.

    ``active_regions`` is a table of real ones (a path, or what `read_active_regions` returned); None draws them
    (`statistical_regions`). ``progress(done, total)`` is called after every frame. Returns the paths, whose names
    sort by time. ``rotation`` and ``missing`` are those of `render`. The same arguments give the same files, and a
    frame does not depend on start, days or cadence.
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
    _check_frame(rotation, missing)
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
    paths: list[Path] = []
    written: deque[Future[None]] = deque()
    # To wait until a file is on the disk takes longer than to make a frame: others are written and made meanwhile.
    with ThreadPoolExecutor(_WRITERS) as writers:
        for i in range(total):
            when = first + timedelta(milliseconds=round(i * cadence_minutes * 60_000))
            paths.append(folder / file_name(when))
            image = render(active_regions, when, size, seed, rotation=rotation, missing=missing)
            written.append(writers.submit(write_fits, paths[-1], image, when, seed, rotation))
            if len(written) > 2 * _WRITERS:
                written.popleft().result()
            if progress:
                progress(i + 1, total)
        for file in written:
            file.result()
    return paths
