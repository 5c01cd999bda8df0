"""How a solar encoder does on real pictures of the Sun in white light, beside plain representations of the same pixels.

    python -m benchmarks.continuum_solar FOLDER [ENCODER]

FOLDER holds full-disk pictures whose names tell their times, such as the SOHO/MDI continuum JPEGs; ENCODER is `solar`
unless said. All rows but the first two see the flattened picture (`fasthash.solar.magnetogram.flatten`): each pixel's
grey less the median of its ring. The last rows see no grey at all, or lay the grid on the disk. Precision with k = the
number of similar images, 48-h window, and with everything within 6 h excluded. Prints a table as Markdown.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash import load_encoder
from fasthash._progress import Progress
from fasthash.descriptor import GridHistogram
from fasthash.encoder import Encoder
from fasthash.evaluation import evaluate_window
from fasthash.io import find_images, read_image, resize
from fasthash.solar.magnetogram import Disk, disk_of_picture, flatten, mask_sky, to_gauss

COMPONENTS = 50
RANGES = (50.0, 100.0, 250.0, 1000.0)  # black to white is -1000 to 1000
BEST = 250.0  # of RANGES, on these pictures
ON_DISK = 230  # pixels of the disk where the grid is laid on it


def look(path: str, encoder: Encoder) -> tuple[Any, ...] | None:
    """What `representations` takes of a picture, and last its time; None where no disk is found.

    Network input, flattened pixels, counts over each of RANGES, counts of the disk alone, its radius.
    """
    image = read_image(path)
    pixels = to_gauss(image)
    disk = disk_of_picture(pixels)
    if disk is None:
        return None
    flat, _ = flatten(pixels, disk)
    counts = np.stack([GridHistogram(value_range=(-r, r), outside="clip").transform(flat)[0] for r in RANGES])
    on_disk = GridHistogram(value_range=(-BEST, BEST), outside="clip").transform(laid_on_disk(flat, disk))[0]
    shown = np.nan_to_num(flat).astype(np.float16)
    return encoder.front_end.describe(image), shown, counts.astype("f4"), on_disk.astype("f4"), disk.radius, image.time


def laid_on_disk(flat: NDArray[np.float32], disk: Disk) -> NDArray[np.float32]:
    """The disk at one size whatever its own, to a fraction of a pixel; NaN off it."""
    height, width = flat.shape
    x, y, r = disk.x + 0.5, disk.y + 0.5, disk.radius
    box = (max(x - r, 0), max(y - r, 0), min(x + r, width), min(y + r, height))
    middle = (ON_DISK - 1) / 2
    return mask_sky(resize(np.nan_to_num(flat), (ON_DISK, ON_DISK), box), Disk(middle, middle, middle, 0.0))


def principal(rows: NDArray[Any]) -> NDArray[np.float32]:
    """The first components of the rows, fitted to these very rows: float32 (n, COMPONENTS)."""
    rows = rows.reshape(len(rows), -1).astype(np.float32)
    rows -= rows.mean(axis=0)
    values, vectors = np.linalg.eigh(rows @ rows.T)
    return np.asarray(vectors[:, -COMPONENTS:] * np.sqrt(np.maximum(values[-COMPONENTS:], 0)), np.float32)


def representations(encoder: Encoder, seen: list[Any]) -> Iterator[tuple[str, NDArray[Any], str]]:
    inputs, pixels, counts, on_disk, radius = (np.stack(column) for column in list(zip(*seen, strict=True))[:5])
    hashes = encoder.encode_inputs(inputs)
    yield encoder.name, hashes, "l2"
    yield f"{encoder.name}, {encoder.n_bits} bits", encoder.binarize(hashes), "hamming"
    yield f"PCA, {COMPONENTS} components, of the pixels", principal(pixels), "l2"
    for i, reach in enumerate(RANGES):
        yield f"MFGDV of the pixels, ± {reach:g}", counts[:, i], "l2"
    for i, reach in enumerate(RANGES):
        yield f"its square roots, ± {reach:g}", np.sqrt(counts[:, i]), "l2"
    yield f"the same, the grid laid on the disk, ± {BEST:g}", np.sqrt(on_disk), "l2"
    yield "the disk's radius alone", radius[:, np.newaxis].astype(np.float32), "l2"
    yield "pixels of the disk in each of 25 cells", counts[:, 0].reshape(len(counts), 25, -1).sum(axis=2), "l2"


def main(folder: str, name: str = "solar") -> None:
    encoder, progress = load_encoder(name), Progress("pictures")
    paths, _ = find_images([folder])
    looked = []
    for done, path in enumerate(paths, start=1):
        looked.append(look(path, encoder))
        progress(done, len(paths))
    seen = [item for item in looked if item is not None]
    times = np.array([item[-1] for item in seen])
    print(f"| {len(seen)} of {len(paths)} pictures | precision | within 6 h excluded | 95 % interval | chance |")
    print("|---|---|---|---|---|")
    for label, rows, metric in representations(encoder, seen):
        reports = [evaluate_window(rows, times, "48h", span, metric) for span in ("0h", "6h")]
        (low, high), chance = reports[0].ci95, reports[0].chance
        values = " | ".join(f"{report.precision:.3f}" for report in reports)
        print(f"| {label} | {values} | {low:.3f} to {high:.3f} | {chance:.3f} |", flush=True)


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3 or not Path(sys.argv[1]).is_dir():
        sys.exit(__doc__)
    main(*sys.argv[1:])
