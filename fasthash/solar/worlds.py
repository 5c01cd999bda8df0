"""Many Suns to train on: simulated series, each with its own field model, kept as field maps.

One world is 120 days at 3 h of one Sun, the statistics of its regions those of a random date of 1996 to 2024. A learner
that saw one field model alone would learn its texture, so every constant of the simulator varies from world to world,
and two worlds in five are drawn by another model altogether: a few smooth Gaussians a region.

    python -m fasthash.solar.worlds FOLDER COUNT SEED
"""

import functools
import multiprocessing
import os
import sys
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._progress import Progress
from fasthash._storage import atomic_write
from fasthash._validation import available_cores, check_int
from fasthash.errors import CorruptFileError, FastHashError
from fasthash.solar.active_regions import ActiveRegions, statistical_regions
from fasthash.solar.ephemeris import carrington_drift, observer, to_days
from fasthash.solar.field_map import field_map
from fasthash.solar.magnetogram import Disk
from fasthash.solar.simulator import FIELD_OF_VIEW, FieldModel, render

CADENCE_HOURS = 3
DAYS = 120  # as long as an archive in which to search: its frames are what each must be told from
FIRST, YEARS = np.datetime64("1996-06-01T00", "h"), 28
SMOOTH_SHARE = 0.4  # of the worlds
_SIZES = (96, 128, 160)  # pixels a side


@dataclass(frozen=True)
class SmoothModel:
    """A few Gaussians a region, a network of smoothed noise, and white noise: the simplest field one might simulate.

    ``fill``: radius of the disk, in half image sides. ``separation`` and ``width``: factors of the polarities' distance
    and extent. ``patches``: Gaussians a polarity. ``peak`` (G) is reached by 200 millionths of spots, less goes by the
    power ``growth``. ``plage`` (G): what is left without spots. ``network`` (G): its standard deviation. ``projected``:
    whether the field is radial. ``noise``: G.
    """

    fill: float
    separation: float
    width: float
    patches: int
    peak: float
    growth: float
    plage: float
    network: float
    projected: bool
    noise: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> "SmoothModel":
        return cls(
            fill=rng.uniform(0.88, 0.97),
            separation=rng.uniform(0.5, 1.5),
            width=rng.uniform(0.5, 2),
            patches=int(rng.choice([1, 1, 2, 5])),
            peak=rng.uniform(200, 2000),
            growth=rng.uniform(0.3, 1),
            plage=float(rng.choice([0, 20, 60])),
            network=rng.uniform(2, 14),
            projected=bool(rng.random() < 0.7),
            noise=rng.uniform(2, 10),
        )

    def render(self, regions: ActiveRegions, time: datetime, size: int, seed: int) -> NDArray[Any]:
        """One frame, float32 (size, size), gauss, NaN off the disk; north up, west right."""
        days = to_days(time)
        seen = observer(days)
        sine, cosine = np.sin(np.radians(seen.b0)), np.cos(np.radians(seen.b0))
        west = (np.arange(size) - (size - 1) / 2) / (size / 2 * self.fill)
        x, y = np.meshgrid(west, west)
        z = np.sqrt(np.maximum(1 - x * x - y * y, 0))
        image = self._network(x, y * cosine + z * sine, z * cosine - y * sine, seen.l0, days, seed)
        latitude, longitude, sigma, peak = self._patches(regions, days, seed)
        longitude = longitude - np.radians(seen.l0)
        toward = np.cos(latitude) * np.cos(longitude)
        px, py = np.cos(latitude) * np.sin(longitude), np.sin(latitude) * cosine - toward * sine
        pz = np.sin(latitude) * sine + toward * cosine
        for k in np.flatnonzero(pz > -0.1):
            near = tuple(
                slice(*np.searchsorted(west, (place[k] - 4 * sigma[k], place[k] + 4 * sigma[k]))) for place in (py, px)
            )
            cosine_away = np.minimum(px[k] * x[near] + py[k] * y[near] + pz[k] * z[near], 1)  # beyond 1 off the disk
            image[near] += peak[k] * np.exp((cosine_away - 1) / sigma[k] ** 2)
        if self.projected:
            image *= z
        image += self.noise * np.random.default_rng([seed, 7, round(days * 86400)]).standard_normal(image.shape)
        image[x * x + y * y >= 1] = np.nan
        return image.astype(np.float32)

    def _patches(self, regions: ActiveRegions, days: float, seed: int) -> tuple[NDArray[Any], ...]:
        """Latitude, Carrington longitude, sigma (radians) and peak (G) of every Gaussian."""
        i, area, _ = regions.at(days)
        drawn = np.array([_spread(seed, int(key), self.patches) for key in regions.key[i]])
        share, sideways, upwards = drawn.reshape(len(i), 3, 2 * self.patches).transpose(1, 0, 2)
        sign = np.repeat([1.0, -1.0], self.patches)
        half = (regions.separation[i] * self.separation / 2)[:, None]
        along, across = half * (sign + sideways), half * upwards
        tilt = np.radians(regions.tilt[i])[:, None]
        middle = regions.latitude[i][:, None]
        latitude = middle + np.where(middle < 0, -1, 1) * (across * np.cos(tilt) - along * np.sin(tilt))
        west = (along * np.cos(tilt) + across * np.sin(tilt)) / np.maximum(0.3, np.cos(np.radians(middle)))
        drift = carrington_drift(regions.latitude[i]) * (days - regions.reference[i])
        longitude = (regions.longitude[i] + drift)[:, None] + west
        sigma = np.radians(0.12 * self.width * np.sqrt(np.where(area > 0, area, 3)) + 0.8)[:, None]
        strength = self.peak * np.minimum(1, (area / 200) ** self.growth) + self.plage
        peak = (regions.polarity[i] * strength)[:, None] * sign * share
        sigma = sigma * np.ones_like(peak) / np.sqrt(self.patches)
        return tuple(v.ravel() for v in (np.radians(latitude), np.radians(longitude), sigma, peak))

    def _network(self, x: Any, y: Any, z: Any, l0: float, days: float, seed: int) -> NDArray[np.float64]:
        """A pattern that rotates with the Sun and turns into another every two days."""
        latitude = np.degrees(np.arcsin(np.clip(y, -1, 1)))
        longitude = np.degrees(np.arctan2(x, z)) + l0 - carrington_drift(latitude) * days
        row, column = (latitude + 90).astype(np.int64), (longitude % 360).astype(np.int64)
        epoch, age = divmod(days / 2, 1)
        before, after = (_pattern(seed, int(epoch) + step)[row % 180, column % 360] for step in (0, 1))
        return np.asarray(self.network * (np.sqrt(1 - age) * before + np.sqrt(age) * after))


@functools.lru_cache(maxsize=4096)
def _spread(seed: int, key: int, patches: int) -> NDArray[np.float64]:
    """Share of the peak, and offsets along and across (half separations), of the patches of a region: (3, 2 n)."""
    rng, scatter = np.random.default_rng([seed, 5, key]), float(patches > 1)
    drawn = rng.uniform(-0.5, 0.5, 2 * patches), rng.normal(0, 0.4, 2 * patches), rng.normal(0, 0.5, 2 * patches)
    return np.stack(drawn) * scatter + [[1], [0], [0]]


@functools.lru_cache(maxsize=4)
def _pattern(seed: int, epoch: int) -> NDArray[np.float64]:
    """Smoothed noise over the sphere, a degree a cell, of mean 0 and standard deviation 1: (180, 360)."""
    noise = np.random.default_rng([seed, 6, epoch]).standard_normal((180, 360))
    for axis in (0, 1):
        noise = noise + np.roll(noise, 1, axis) + np.roll(noise, -1, axis)
    return noise / 3


def make_world(number: int, seed: int = 0, days: int = DAYS) -> tuple[NDArray[np.float16], NDArray[np.datetime64]]:
    """The maps, float16 (n, 64, 64), gauss, and times, datetime64[ms] (n,), of one world."""
    rng = np.random.default_rng([seed, 99, number])
    start = FIRST + rng.integers(0, YEARS * 365 * 24) * np.timedelta64(1, "h")
    times = (start + np.arange(0, days * 24, CADENCE_HOURS)).astype("datetime64[ms]")
    regions = statistical_regions(times[0], days, int(rng.integers(1 << 30)), activity=float(rng.uniform(0.5, 1.9)))
    size = int(rng.choice(_SIZES))
    middle = (size - 1) / 2
    smooth, model = SmoothModel.random(rng), FieldModel.random(rng)
    noise, field_seed = float(np.exp(rng.uniform(np.log(0.5), np.log(6)))), int(rng.integers(1 << 30))
    is_smooth = rng.random() < SMOOTH_SHARE
    maps = np.empty((len(times), 64, 64), np.float16)
    for i, time in enumerate(times.astype(datetime)):
        if is_smooth:
            image, radius = smooth.render(regions, time, size, field_seed), size / 2 * smooth.fill
        else:
            image = render(regions, time, size, field_seed, noise, model)
            radius = observer(to_days(time)).angular_radius / (FIELD_OF_VIEW / size)
        maps[i] = field_map(image, Disk(middle, middle, radius, 0.0), maps.shape[1])
    return maps, times


def write_worlds(
    folder: str | os.PathLike[str],
    count: int,
    seed: int = 0,
    days: int = DAYS,
    processes: int = -1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write worlds 0 to ``count - 1`` of a ``seed`` as .npz files of ``maps`` and ``times``, several at a time.

    What is there already is kept, so that a second call goes on where the first one was stopped. Returns the paths.
    Raises ArgumentError, FastHashError where nothing can be written.
    """
    check_int("count", count, 1, 99_999)
    check_int("seed", seed, 0)
    check_int("days", days, 1)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FastHashError(f"{folder}: cannot make this folder: {error.strerror}") from error
    paths = [Path(folder) / f"world-{seed}-{number:05d}.npz" for number in range(count)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    done = count - len(missing)
    workers = min(available_cores() if processes == -1 else check_int("processes", processes, 1), len(missing)) or 1
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for job in as_completed([pool.submit(_write_world, paths[number], number, seed, days) for number in missing]):
            job.result()
            done += 1
            if progress:
                progress(done, count)
    return paths


def _write_world(path: Path, number: int, seed: int, days: int) -> None:
    maps, times = make_world(number, seed, days)
    with atomic_write(path) as file:
        np.savez(file, maps=maps, times=times)


def find_worlds(inputs: Iterable[str]) -> tuple[list[Path], list[str]]:
    """The world files that are among ``inputs`` or in folders among them, and the inputs that brought none."""
    worlds: list[Path] = []
    others: list[str] = []
    for item in inputs:
        found = [Path(item)] if item.endswith(".npz") else sorted(Path(item).glob("world-*.npz"))
        worlds += found
        if not found:
            others.append(item)
    return worlds, others


def read_world(path: str | os.PathLike[str]) -> tuple[NDArray[np.float16], NDArray[np.datetime64]]:
    """The maps and times of a file that `write_worlds` made. Raises CorruptFileError."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            maps, times = arrays["maps"], arrays["times"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptFileError(f"{path}: not a simulated world: {error}") from error
    if maps.ndim != 3 or maps.dtype != np.float16 or times.shape != maps.shape[:1] or times.dtype.kind != "M":
        raise CorruptFileError(f"{path}: not a simulated world: {maps.dtype} {maps.shape}, {times.dtype} {times.shape}")
    return maps, times


if __name__ == "__main__":
    if len(sys.argv) != 4 or not all(text.isdecimal() for text in sys.argv[2:]):
        print("usage: python -m fasthash.solar.worlds FOLDER COUNT SEED", file=sys.stderr)
        sys.exit(2)
    try:
        write_worlds(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), progress=Progress("worlds"))
    except FastHashError as error:
        sys.exit(f"error: {error}")
