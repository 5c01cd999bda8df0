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
from fasthash.io import find_images, read_image
from fasthash.solar.magnetogram import Disk, disk_of_picture, flatten, to_gauss

COMPONENTS = 50
RANGES = (50.0, 100.0, 250.0, 1000.0)  # black to white is -1000 to 1000
BEST = 250.0  # of RANGES, on these pictures
GRID, BINS = 5, 16  # of the solar paper


def look(path: str, encoder: Encoder) -> tuple[Any, ...] | None:
    """What `representations` takes of a picture, and last its time; None where no disk is found.

    Network input, flattened pixels, counts over each of RANGES, shares of cells of the disk, its radius.
    """
    image = read_image(path)
    pixels = to_gauss(image)
    disk = disk_of_picture(pixels)
    if disk is None:
        return None
    flat, _ = flatten(pixels, disk)
    counts = np.stack([GridHistogram(value_range=(-r, r), outside="clip").transform(flat)[0] for r in RANGES])
    shown = np.nan_to_num(flat).astype(np.float16)
    inputs, on_disk = encoder.front_end.describe(image), shares_on_disk(flat, disk)
    return inputs, shown, counts.astype("f4"), on_disk, disk.radius, image.time


def shares_on_disk(flat: NDArray[np.float32], disk: Disk) -> NDArray[np.float32]:
    """The histogram of each cell of a grid laid on the disk, as shares of its pixels: they tell no size."""
    up, along = (np.arange(n) - middle for n, middle in zip(flat.shape, (disk.y, disk.x), strict=True))
    row, column = (np.floor((x / disk.radius + 1) / 2 * GRID).astype(int) for x in (up[:, np.newaxis], along))
    inside = np.isfinite(flat) & (row >= 0) & (row < GRID) & (column >= 0) & (column < GRID)
    grey = np.clip((flat / BEST + 1) / 2 * BINS, 0, BINS - 1, where=inside, out=np.zeros_like(flat)).astype(int)
    cell = np.broadcast_to(row * GRID + column, flat.shape)
    counts = np.bincount((cell * BINS + grey)[inside], minlength=GRID * GRID * BINS).reshape(-1, BINS)
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), np.float32).ravel()


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
    yield f"the same of shares, the grid laid on the disk, ± {BEST:g}", np.sqrt(on_disk), "l2"
    yield "the disk's radius alone", radius[:, np.newaxis].astype(np.float32), "l2"
    yield "pixels of the disk in each of 25 cells", counts[:, 0].reshape(len(counts), GRID**2, -1).sum(axis=2), "l2"


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
