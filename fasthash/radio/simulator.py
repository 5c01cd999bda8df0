"""A simulator of radio galaxies as FIRST shows them, in the four classes: fast, and honest about being one.

A source is a bag of Gaussians along its jets, each a place, a flux and a width. An image is their sum, seen by a round
beam of 5.4" at 1.8" a pixel, plus noise that the beam has smoothed; then what is below three sigma is set to 0 and the
peak to white, as in the published cut-outs. What tells the classes apart is where the jets are bright and where they go
(Fanaroff and Riley 1974): FRI near the core, fading outwards; FRII at the ends; the tails of bent ones turn aside.

Sizes, brightness against noise and shares of sources with a core or with neighbours were set by what
`fasthash.radio.compare` measures of the published sets, and by eye; no image of theirs is in it.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fasthash._storage import atomic_write
from fasthash._validation import check_choice, check_int
from fasthash.errors import FastHashError
from fasthash.io import png_bytes
from fasthash.radio.cutout import above_noise
from fasthash.radio.dataset import CLASSES, RadioSet, make_set
from fasthash.radio.sky import PIXEL

BEAM = 5.4 / PIXEL / np.sqrt(8 * np.log(2))  # sigma in pixels of a beam of 5.4" full width at half maximum
NEIGHBOURS = 0.2  # other sources in a field of 150 x 150 pixels, on average
SIZES = 32, 1024  # pixels a side, at least and at most

# What every five images of a class go to: a few are enough to have all three.
_TURN = ("train", "valid", "train", "test", "train")

_NAME = "sim-"  # what the names of simulated images begin with
_MATCHED = 2 * np.sqrt(np.pi) * BEAM  # by which smoothing with the beam lowers the sigma of white noise


@dataclass(frozen=True)
class Blobs:
    """Gaussians: places (n, 2) and sigmas (n,) in pixels, from the middle and without the beam; fluxes (n,)."""

    place: NDArray[np.float64]
    flux: NDArray[np.float64]
    width: NDArray[np.float64]

    def draw(self, size: int) -> NDArray[np.float64]:
        """Seen by the beam, (size, size); a point of flux 1 has a peak of 1."""
        sigma2 = self.width**2 + BEAM**2
        pixel = np.arange(size) - (size - 1) / 2
        across, along = (np.exp(-0.5 * (pixel[:, None] - self.place[:, axis]) ** 2 / sigma2) for axis in (0, 1))
        # No product of matrices: BLAS sums in another order on another host, and starts threads even for small ones.
        return np.asarray(np.einsum("yn,xn->yx", along * (self.flux * BEAM**2 / sigma2), across))

    def turned(self, angle: float) -> "Blobs":
        """Around the middle, by ``angle`` in radians."""
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return Blobs(self.place @ turn.T, self.flux, self.width)

    def __add__(self, other: "Blobs") -> "Blobs":
        parts = ((self.place, other.place), (self.flux, other.flux), (self.width, other.width))
        return Blobs(*(np.concatenate(pair) for pair in parts))


# ---- the classes ---------------------------------------------------------------------------------------------------


def _point(flux: float, width: float = 0.0, place: tuple[float, float] = (0.0, 0.0)) -> Blobs:
    return Blobs(np.array([place]), np.array([flux]), np.array([width]))


def _jet(
    direction: NDArray[np.float64], length: float, brightness: NDArray[np.float64], width: NDArray[np.float64]
) -> Blobs:
    """A jet from the middle: at even steps from its foot the direction (radians), flux a pixel of length, and width."""
    step = length / len(direction)
    place = np.cumsum(np.stack([np.cos(direction), np.sin(direction)], axis=1) * step, axis=0)
    return Blobs(place, brightness * step, width)


def _steps(length: float) -> NDArray[np.float64]:
    """From the foot of a jet, 0, to its end, 1: so dense that no beam sees the gaps."""
    return (np.arange(n := max(6, int(length))) + 0.5) / n


def _knots(t: NDArray[np.float64], rng: np.random.Generator, contrast: float) -> NDArray[np.float64]:
    """Smooth random brightness along a jet, of mean about one."""
    lumps = ndimage.gaussian_filter1d(rng.normal(0, 1, len(t)), 1.5, mode="nearest") * 2.3
    return np.asarray(np.exp(contrast * lumps))


def _wiggle(t: NDArray[np.float64], rng: np.random.Generator, radians: float) -> NDArray[np.float64]:
    """A slow bend to and fro, of this amplitude."""
    return np.asarray(radians * np.sin(2 * np.pi * (rng.uniform(0.2, 0.8) * t + rng.random())))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _compact(rng: np.random.Generator) -> Blobs:
    """A point, or hardly more."""
    blobs = _point(1.0, rng.uniform(0, 0.8))
    if rng.random() < 0.15:  # a bulge towards one side, within the beam
        blobs += _point(rng.uniform(0.05, 0.3), 0.5, tuple(rng.normal(0, 1.2, 2)))
    return blobs


def _fri(rng: np.random.Generator) -> Blobs:
    """Two jets that are brightest near the core and fade into plumes."""
    length, tilt = _log_uniform(rng, 9, 46), rng.uniform(0, 0.35)
    fade, opening = rng.uniform(0.15, 0.55), rng.uniform(0.03, 0.2)
    blobs = _point(rng.uniform(0.0, 0.7) * length * fade * 0.5, 0.3)
    for side in (0, 1):
        reach = length * rng.uniform(0.7, 1.2)
        t = _steps(reach)
        direction = np.pi * side + _wiggle(t, rng, tilt)
        brightness = np.exp(-t / fade) * _knots(t, rng, 0.5) * rng.uniform(0.5, 1.0)
        blobs += _jet(direction, reach, brightness, 0.4 + opening * reach * t)
    return blobs


def _frii(rng: np.random.Generator) -> Blobs:
    """Two lobes that are brightest at their ends, where the hot spots are; sometimes a core."""
    length, lobe = _log_uniform(rng, 2.2, 24), rng.uniform(0.4, 1.0)
    blobs = _point(rng.uniform(0.02, 0.35) if rng.random() < 0.35 else 0.0)
    spot = rng.uniform(0.05, 0.75)
    for side in (0, 1):
        reach, strength = length * rng.uniform(0.75, 1.15), rng.uniform(0.45, 1.0)
        t = _steps(reach)
        direction = np.full(len(t), np.pi * side + rng.normal(0, 0.12))
        # What flows back from the hot spot fades towards the core, and is widest half-way.
        brightness = np.clip((t - 1 + lobe) / lobe, 0, 1) ** rng.uniform(0.7, 2.0) * _knots(t, rng, 0.25)
        width = rng.uniform(0.08, 0.25) * reach * np.sqrt(np.clip(1.2 - t, 0, 1))
        back = _jet(direction, reach, brightness, width)
        share = strength * (1 - spot) / max(back.flux.sum(), 1e-9) * rng.uniform(1, 4)
        end = (float(back.place[-1, 0]), float(back.place[-1, 1]))
        blobs += Blobs(back.place, back.flux * share, back.width) + _point(strength * spot, rng.uniform(0, 0.9), end)
    return blobs


def _bent(rng: np.random.Generator) -> Blobs:
    """Two tails that a wind turns to one side: narrow (nearly together) or wide."""
    length = _log_uniform(rng, 11, 48)
    final = rng.uniform(0.75, 1.45) if rng.random() < 0.4 else rng.uniform(0.4, 0.9)  # radians from the first line
    soon, opening = rng.uniform(0.08, 0.5), rng.uniform(0.03, 0.12)
    flare, fade = rng.uniform(0.05, 1.0), rng.uniform(0.2, 0.8)
    blobs = _point(rng.uniform(0.0, 0.4) * length * fade * 0.3, 0.3)
    for side in (-1, 1):
        reach = length * rng.uniform(0.6, 1.3)
        t = _steps(reach)
        turn = final * rng.uniform(0.8, 1.2) * (1 - np.exp(-t / soon)) + _wiggle(t, rng, 0.15)
        direction = np.pi / 2 - side * (np.pi / 2 - turn)
        # Jets are faint until they flare up, then the tail fades.
        brightness = np.where(t < flare, 0.15 + 0.85 * (t / flare) ** 2, np.exp(-(t - flare) / fade)) * _knots(
            t, rng, 0.6
        )
        blobs += _jet(direction, reach, brightness * rng.uniform(0.5, 1.0), 0.5 + opening * reach * t)
    return blobs


_MODELS: dict[str, Callable[[np.random.Generator], Blobs]] = {
    "Compact": _compact,
    "FRI": _fri,
    "FRII": _frii,
    "Bent": _bent,
}
# Peaks against the noise: log-normal, median and spread.
_BRIGHTNESS = {"Compact": (450.0, 0.9), "FRI": (40.0, 0.9), "FRII": (100.0, 1.1), "Bent": (40.0, 0.8)}


# ---- images --------------------------------------------------------------------------------------------------------


def draw_galaxy(label: str, rng: np.random.Generator, size: int = 150) -> NDArray[np.float32]:
    """One field with a source of this class in its middle: float32 (size, size), in units of the noise, NaN nowhere.

    Raises ArgumentError for a label that is none of CLASSES, or a size that is not in [32, 1024].
    """
    check_choice("label", label, CLASSES)
    check_int("size", size, *SIZES)
    source = _MODELS[label](rng).turned(rng.uniform(0, 2 * np.pi))
    middle = np.average(source.place, axis=0, weights=source.flux) if rng.random() < 0.5 else np.zeros(2)
    source = Blobs(source.place - middle + rng.normal(0, 0.7, 2), source.flux, source.width)
    image = source.draw(size)
    median, spread = _BRIGHTNESS[label]
    image *= max(8.0, median * np.exp(rng.normal(0, spread))) / image.max()
    for _ in range(rng.poisson(NEIGHBOURS * (size / 150) ** 2)):
        place = rng.uniform(-size / 2, size / 2, 2)
        image += _point(8 * rng.pareto(1.2) + 8, rng.uniform(0, 1), (float(place[0]), float(place[1]))).draw(size)
    noise = ndimage.gaussian_filter(rng.normal(0, _MATCHED, (size, size)), BEAM)
    return np.asarray(image + noise, np.float32)


def as_published(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Whole numbers from 0 to 255, float32 (H, W): 0 below three sigma of the noise, then linear, the peak 255."""
    flux = above_noise(pixels)
    return np.asarray(np.rint(flux * (255 / max(float(flux.max()), 1e-30))), np.float32)


def simulate_galaxies(
    count: int, seed: int = 0, size: int = 150, progress: Callable[[int, int], None] | None = None
) -> RadioSet:
    """Simulated radio galaxies, the four classes in turn, as they would be published.

    Each is drawn from a generator of its own, seeded by the seed and its number: the first hundred of a thousand are
    the hundred. Of every five of a class three are for train, one is for valid and one for test.

    Parameters
    ----------
    count : int
    size : int
        Pixels a side; 150 as in the published sets, 300 for twice the sky.
    progress : callable(done, total), optional
    """
    check_int("count", count, 1)
    check_int("seed", seed, 0)
    check_int("size", size, *SIZES)
    images, labels, names, splits = [], [], [], []
    for i in range(count):
        label, split = CLASSES[i % len(CLASSES)], _TURN[i // len(CLASSES) % len(_TURN)]
        images.append(as_published(draw_galaxy(label, np.random.default_rng((seed, i)), size)))
        labels.append(label)
        splits.append(split)
        names.append(f"{split}/{label}/{_NAME}{seed}-{i:06d}.png")
        if progress is not None:
            progress(i + 1, count)
    return make_set(images, labels, names, splits)


def is_simulated(name: str) -> bool:
    """Whether the name of an image is one that `simulate_galaxies` gives."""
    return os.path.basename(name).startswith(_NAME)


def write_galaxies(
    out: str | os.PathLike[str],
    count: int,
    seed: int = 0,
    size: int = 150,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """`simulate_galaxies` as grey PNG files, ``OUT/train/FRI/sim-0-000001.png``; returns their paths.

    Raises FastHashError where a file cannot be written. Files of another seed or count stay beside them.
    """
    galaxies = simulate_galaxies(count, seed, size, progress)
    paths = [Path(out, name) for name in galaxies.names]
    try:
        for folder in sorted({path.parent for path in paths}):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FastHashError(f"{error.filename}: cannot make this folder: {error.strerror}") from error
    for path, image in zip(paths, galaxies.images, strict=True):
        with atomic_write(path) as file:
            file.write(png_bytes(image.astype(np.uint8)))
    return paths
