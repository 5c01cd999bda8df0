"""What each part of the best solar preset gives: short trainings with one part changed, side by side.

    python -m benchmarks.ablation_solar WORLDS [STEPS]        make ablation

WORLDS is the folder that `make solar` trains on. Every row is trained with the same seed for STEPS steps (250 unless
said; the shipped encoder had many times more) and measured on two simulated Suns that no training saw: one of the
simulator's default field model, and one of two smooth Gaussians a region. Prints a table as Markdown: precision with
k = the number of similar images, 48-h window, and with everything within 6 h excluded.
"""

import contextlib
import itertools
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from fasthash import load_encoder
from fasthash.codes import binarize
from fasthash.descriptor import GridHistogram
from fasthash.evaluation import evaluate_window
from fasthash.io import Image
from fasthash.solar import metric_learning
from fasthash.solar.active_regions import statistical_regions
from fasthash.solar.ephemeris import observer, to_days
from fasthash.solar.field_map import field_map
from fasthash.solar.magnetogram import Disk, MagnetogramHistogram
from fasthash.solar.simulator import FIELD_OF_VIEW, render
from fasthash.solar.worlds import SmoothModel, find_worlds, read_world

SEED, SIZE, DAYS, CADENCE_HOURS = 1, 256, 120, 2
SMOOTH = SmoothModel(
    fill=0.93, separation=1, width=1, patches=1, peak=800, growth=0.6, plage=20, network=4, projected=True, noise=10
)


def frames(smooth: bool) -> Iterator[tuple[NDArray[np.float32], Disk, np.datetime64]]:
    """Pixels, disk and time of every frame of a test Sun."""
    start = np.datetime64("2012-05-01" if smooth else "2014-03-01", "ms")
    seed = 2012 if smooth else 2014
    regions = statistical_regions(start, DAYS, seed)
    for time in start + np.arange(0, DAYS * 24, CADENCE_HOURS) * np.timedelta64(1, "h"):
        when: datetime = time.astype(datetime)
        if smooth:
            pixels, radius = SMOOTH.render(regions, when, SIZE, seed), SIZE / 2 * SMOOTH.fill
        else:
            pixels = render(regions, when, SIZE, seed)
            radius = observer(to_days(when)).angular_radius / (FIELD_OF_VIEW / SIZE)
        yield pixels, Disk((SIZE - 1) / 2, (SIZE - 1) / 2, radius, 0.0), time


def test_sun(smooth: bool) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.datetime64]]:
    """Field maps, histograms (shares) and times of a test Sun."""
    histogram = MagnetogramHistogram(GridHistogram())
    maps, shares, times = [], [], []
    for pixels, disk, time in frames(smooth):
        maps.append(field_map(pixels, disk, metric_learning.CELLS))
        shares.append(histogram.describe(Image(pixels)))
        times.append(time)
    return np.stack(maps), np.stack(shares), np.array(times)


def half_resolution(maps: NDArray[Any]) -> NDArray[Any]:
    n, side, _ = maps.shape
    return maps.reshape(n, side // 2, 2, side // 2, 2).mean((2, 4), dtype=np.float32).astype(maps.dtype)


def cross_entropy(torch: Any, distances: Any, similar: Any, counts: Any) -> Any:
    """What teaches the floats, for the bits, in place of `metric_learning._precision_loss`."""
    return metric_learning._neighbour_loss(torch, distances * 0.3, similar, counts)


def sign_distances(torch: Any, values: Any, _: Any) -> Any:
    """Hamming distances of the signs of values, whose gradient is that of tanh, in place of those of phases."""
    soft = torch.tanh(values)
    signs = values.sign().detach() + soft - soft.detach()
    return (metric_learning.N_BITS - signs @ signs.T) / 2


def signs(net: Any, hashes: NDArray[np.float32]) -> NDArray[np.uint8]:
    weight, bias = (values.detach().numpy() for values in (net.code.weight, net.code.bias))
    return binarize(hashes, -bias, weight)


def above_medians(_: Any, hashes: NDArray[np.float32]) -> NDArray[np.uint8]:
    return binarize(hashes, np.median(hashes, axis=0))


def unaltered(*arguments: Any) -> Any:
    """The maps as they are, in place of `metric_learning.augment`."""
    return arguments[1]


# Of each row, what is put in place of metric_learning's own.
VARIANTS: dict[str, dict[str, Any]] = {
    "all parts": {},
    "all parts, another seed": {"seed": SEED + 1},
    "32 phases of 2 bits": {"PHASES": 32, "BITS_PER_PHASE": 2},
    "8 phases of 8 bits": {"PHASES": 8, "BITS_PER_PHASE": 8},
    "64 signs": {"PHASES": 64, "BITS_PER_PHASE": 1, "_code_distances": sign_distances, "codes_of": signs},
    "bits learn by cross-entropy too": {"_precision_loss": cross_entropy, "BITS": 3.0},
    "floats alone, bits at their medians": {"BITS": 0.0, "codes_of": above_medians},
    "maps of 32 x 32 cells": {"CELLS": 32, "STRIDES": (1, 2, 1, 2, 2)},
    "batches of eight Suns, not two": {"SERIES_PER_BATCH": 8, "SPANS_PER_SERIES": 1, "NEAR": 22, "FAR": 14},
    "no augmentation": {"augment": unaltered},
    "a quarter of the worlds": {"share": 4},
}


def measure(hashes: NDArray[np.float32], codes: NDArray[np.uint8], times: NDArray[np.datetime64]) -> list[float]:
    pairs: list[tuple[Any, str]] = [(hashes, "l2"), (codes, "hamming")]
    return [evaluate_window(v, times, "48h", span, m).precision for v, m in pairs for span in ("0h", "6h")]


def train_variant(name: str, folder: str, steps: int, suns: list[Any]) -> list[float]:
    changes = dict(VARIANTS[name])
    worlds, seed = find_worlds([folder])[0][:: changes.pop("share", 1)], changes.pop("seed", SEED)
    prepare: Callable[[NDArray[Any]], NDArray[Any]] = half_resolution if "CELLS" in changes else lambda maps: maps
    maps, times = (np.concatenate(parts) for parts in zip(*(read_world(path) for path in worlds), strict=True))
    maps, row = prepare(maps), []
    with contextlib.ExitStack() as replaced:
        for key, value in changes.items():
            replaced.enter_context(mock.patch.object(metric_learning, key, value))
        net = metric_learning.train(maps, times, steps, seed, num_threads=1).network
        for fields, _, when in suns:
            hashes = metric_learning.hashes_of(net, prepare(fields))
            row += measure(hashes, metric_learning.codes_of(net, hashes), when)
    return row


def references(suns: list[Any]) -> Iterator[tuple[str, list[float]]]:
    """What the best preset is to be compared with, on the same Suns."""
    paper, rows = load_encoder("solar-paper"), {"square roots of MFGDV": [], "solar-paper": []}
    for _, shares, when in suns:
        roots, hashes = np.sqrt(shares), paper.encode_inputs(shares)
        rows["square roots of MFGDV"] += measure(roots, binarize(roots, np.median(roots, axis=0)), when)
        rows["solar-paper"] += measure(hashes, paper.binarize(hashes), when)
    yield from rows.items()


def main(folder: str, steps: int = 250) -> None:
    suns = [test_sun(smooth) for smooth in (False, True)]
    columns = [f"{what} | within 6 h excluded" for what in ("field: floats", "bits", "smooth: floats", "bits")]
    print(f"| | {' | '.join(columns)} |\n{'|---' * (1 + 2 * len(columns))}|", flush=True)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = {name: pool.submit(train_variant, name, folder, steps, suns) for name in VARIANTS}
        for name, row in itertools.chain(references(suns), ((name, job.result()) for name, job in jobs.items())):
            print(f"| {name} | {' | '.join(f'{value:.3f}'.lstrip('0') for value in row)} |", flush=True)


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3 or not Path(sys.argv[1]).is_dir():
        sys.exit(__doc__)
    main(sys.argv[1], *map(int, sys.argv[2:]))
