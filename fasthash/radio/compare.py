"""How much simulated radio galaxies are like real ones: where their flux is, class by class, and both side by side.

python -m fasthash.radio.compare sets/data.zip -o picture.png --split train
"""

import argparse
import sys

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fasthash._storage import atomic_write
from fasthash.errors import FastHashError
from fasthash.io import png_bytes
from fasthash.radio.cutout import Cutout
from fasthash.radio.dataset import CLASSES, RadioSet, describe_set, originals, read_dataset
from fasthash.radio.simulator import simulate_galaxies

MEASURES = ("near the peak", "radius", "axis ratio", "peaks", "peak from middle", "area (%)")

_FAINTEST = 0.03  # of the peak: below it are noise, and the traces of JPEG
_PEAK = 0.15
_BEAM = 3.0  # pixels


def measure(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """The numbers called MEASURES of a cut-out, float32 (n, n) with the peak 1, one pixel for one of FIRST.

    The share of the flux within a beam of the peak; r.m.s. radius around the middle of the flux, pixels; r.m.s. width
    across the principal axis by that along it; local maxima over 0.15; how far the peak is from the middle of the flux,
    pixels; share of pixels with flux, percent.
    """
    flux = np.where(image > _FAINTEST, image, 0).astype(np.float64)
    total = flux.sum()
    y, x = np.indices(flux.shape, np.float64)
    y -= (flux * y).sum() / total
    x -= (flux * x).sum() / total
    cross = (flux * x * y).sum()
    moments = np.linalg.eigvalsh(np.array([[(flux * x * x).sum(), cross], [cross, (flux * y * y).sum()]]) / total)
    row, column = np.unravel_index(flux.argmax(), flux.shape)
    near = np.hypot(y - y[row, column], x - x[row, column]) <= _BEAM
    peaks = np.count_nonzero((flux == ndimage.maximum_filter(flux, 5)) & (flux > _PEAK))
    ratio = np.sqrt(max(moments[0], 0.0) / moments[1])
    from_middle = np.hypot(y[row, column], x[row, column])
    area = 100 * np.mean(flux > 0)
    return np.array([flux[near].sum() / total, np.sqrt(moments.sum()), ratio, peaks, from_middle, area])


def measure_set(images: RadioSet, crop: int = 80) -> dict[str, NDArray[np.float64]]:
    """`measure` of the central ``crop`` pixels of all images that show a source there: (n, 6) for each class."""
    rows, kept, _ = describe_set(images, Cutout(crop, crop))
    return {label: np.array([measure(row) for row in rows[kept.labels == label]]) for label in CLASSES}


def table(real: RadioSet, simulated: RadioSet) -> str:
    """Medians, and in brackets the 10th and 90th percentile, of every class that both sets have."""
    lines = [f"{'':<18}" + "".join(f"{name:>24}" for name in MEASURES)]
    both = {"real": measure_set(real), "simulated": measure_set(simulated)}
    for label in CLASSES:
        if not all(len(measured[label]) for measured in both.values()):
            continue
        for name, measured in both.items():
            low, middle, high = np.percentile(measured[label], (10, 50, 90), axis=0)
            cells = (f"{b:.2f} ({a:.2f} to {c:.2f})" for a, b, c in zip(low, middle, high, strict=True))
            lines.append(f"{f'{label}, {name}':<18}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


def sheet(real: RadioSet, simulated: RadioSet, columns: int = 16, seed: int = 0) -> NDArray[np.uint8]:
    """A grey picture, uint8: for each class a row of real galaxies, drawn at random, above one of simulated ones."""
    side = 90
    blank = np.full((side, side), 0.5, np.float32)
    rows = []
    for label in CLASSES:
        for images in (real, simulated):
            order = np.random.default_rng(seed).permutation(np.flatnonzero(images.labels == label))
            chosen = images.take(order[:columns])
            shown = list(describe_set(chosen, Cutout(side, 100, "sqrt"))[0]) if len(chosen) else []
            shown += [blank] * (columns - len(shown))
            rows.append(np.concatenate([np.pad(each, 1, constant_values=0.5) for each in shown], axis=1))
    return np.asarray(np.rint(255 * np.concatenate(rows)), np.uint8)


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m fasthash.radio.compare",
        description="Measure real radio galaxies beside simulated ones, and draw both.",
        epilog="example: python -m fasthash.radio.compare sets/data.zip -o compare.png --split train",
    )
    parser.add_argument("real", metavar="DATASET", help="folder or zip of class folders; duplicates are left out")
    parser.add_argument("-o", "--output", metavar="FILE.png", help="picture to write")
    parser.add_argument("--split", metavar="NAME", help="train, valid or test (default: everything)")
    parser.add_argument("--count", type=int, default=1200, metavar="N", help="simulated galaxies (default: 1200)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the simulation (default: 0)")
    args = parser.parse_args()
    try:
        real, simulated = originals(read_dataset(args.real, args.split)), simulate_galaxies(args.count, args.seed)
        print(f"{len(real)} real, {len(simulated)} simulated radio galaxies, central 80 x 80 pixels")
        print(table(real, simulated))
        if args.output:
            with atomic_write(args.output) as file:
                file.write(png_bytes(sheet(real, simulated)))
    except FastHashError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
