"""How well the solar encoders retrieve: the tables of their cards and of docs/evaluation.md, as Markdown.

    python -m benchmarks.solar_encoders years sim2011 sim2014 sim2016   # simulated frames, each folder an archive
    python -m benchmarks.solar_encoders seed_2 sim2011 sim2014 sim2016  # the same by solar-seed-2.onnx, of seed 2
    python -m benchmarks.solar_encoders models g2012.txt g2015.txt      # two field models that are not the simulator's
    python -m benchmarks.solar_encoders suns                            # ten simulated Suns: how far apart they are
    python -m benchmarks.solar_encoders ties FRAMES                     # what the order of equal distances does
    python -m benchmarks.solar_encoders classes FRAMES                  # two and three classes of magnetic flux

Precision with k = the number of similar images, 48-h window; in brackets 95 % intervals.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from examples.flux_classes import NAMES, unsigned_flux
from fasthash import load_encoder
from fasthash.classification import evaluate_classes
from fasthash.encoder import Encoded
from fasthash.evaluation import WindowReport, evaluate_window
from fasthash.io import find_images
from fasthash.solar.active_regions import read_active_regions
from fasthash.solar.field_map import field_map
from fasthash.solar.magnetogram import Disk
from fasthash.solar.simulator import simulate
from fasthash.solar.worlds import SmoothModel

Representation = tuple[str, NDArray, str]  # its name, its hashes or codes, the metric
HALF_WINDOW = np.timedelta64(24, "h")


def representations(folder: str, names: Iterable[str]) -> tuple[NDArray[np.datetime64], list[Representation]]:
    """Times of the frames in a folder, and each encoder's hashes and codes of them."""
    paths, found = find_images([folder])[0], []
    for name in names:
        encoder = load_encoder(name)
        done = [each for each in encoder.encode_files(paths) if isinstance(each, Encoded)]
        hashes = np.stack([each.hash for each in done])
        found += [(f"`{name}`, floats", hashes, "l2")]
        found += [(f"`{name}`, {encoder.n_bits} bits", encoder.binarize(hashes), "hamming")]
    return np.array([each.image.time for each in done]), found


def within(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def head(*cells: str) -> Iterator[str]:
    yield row(*cells)
    yield "|" + "---|" * len(cells)


def years(folders: list[str], encoders: Iterable[str] = ("solar", "solar-paper")) -> Iterator[str]:
    yield from head("frames", "", "precision", "within 6 h excluded", "chance")
    for folder in folders:
        times, found = representations(folder, encoders)
        for name, vectors, metric in found[:3]:
            yield row(f"from {times.min().astype('M8[D]')}", name, *window(vectors, times, metric))


def window(vectors: NDArray, times: NDArray[np.datetime64], metric: str) -> list[str]:
    """Precision, whole and with everything within 6 h excluded, and chance of both."""
    whole, apart = (evaluate_window(vectors, times, "48h", span, metric) for span in ("0h", "6h"))
    figures = [within(report.precision, report.ci95) for report in (whole, apart)]
    return [*figures, f"{whole.chance:.3f}; {apart.chance:.3f}"]


# At the real positions of the groups of a year: one smooth Gaussian a polarity, and five on a strong, noisy network.
MODELS = {
    "2012-05-01": SmoothModel(
        fill=0.94, separation=1, width=1, patches=1, peak=1000, growth=0.6, plage=20, network=6, projected=True, noise=5
    ),
    "2015-07-01": SmoothModel(
        fill=0.92, separation=0.8, width=1.3, patches=5, peak=600, growth=0.5, plage=20, network=10, projected=True,
        noise=8,
    ),
}  # fmt: skip


def models(tables: list[str]) -> Iterator[str]:
    """120 days every 2 h of each."""
    encoder, size = load_encoder("solar"), 160
    yield from head("groups", "", "precision", "within 6 h excluded", "chance")
    for (start, model), table in zip(MODELS.items(), tables, strict=True):
        regions, disk = read_active_regions(table), Disk((size - 1) / 2, (size - 1) / 2, size / 2 * model.fill, 0.0)
        times = (np.datetime64(start, "h") + np.arange(0, 120 * 24, 2)).astype("datetime64[ms]")
        images = (model.render(regions, time, size, seed=9) for time in times.astype(datetime))
        hashes = encoder.encode_inputs(np.stack([field_map(image, disk) for image in images]))
        for name, vectors, metric in (
            ("`solar`, floats", hashes, "l2"),
            (f"`solar`, {encoder.n_bits} bits", encoder.binarize(hashes), "hamming"),
        ):
            yield row(f"from {start}", name, *window(vectors, times, metric))


def suns(_: list[str]) -> Iterator[str]:
    """Other seeds, other months of 2013."""
    reports: dict[str, list[WindowReport]] = {}
    for seed in range(1, 11):
        with tempfile.TemporaryDirectory() as folder:
            list(simulate(folder, f"2013-{seed:02}-01", 40, 120, 96, seed=seed))
            times, found = representations(folder, ("solar", "solar-paper"))
        for name, vectors, metric in found:
            reports.setdefault(name, []).append(evaluate_window(vectors, times, metric=metric))
    yield from head("", "mean precision", "Sun to Sun, 1.96 standard deviations", "mean half width of the intervals")
    for name, each in reports.items():
        precision = np.array([report.precision for report in each])
        half = np.mean([np.diff(report.ci95) / 2 for report in each])
        yield row(name, *(f"{x:.3f}" for x in (precision.mean(), 1.96 * precision.std(ddof=1), half)))


def ties(folders: list[str]) -> Iterator[str]:
    times, found = representations(folders[0], ("solar", "solar-paper"))
    yield from head("", "by row", "rows reversed", "mean of all orders")
    for name, codes, _ in found[1::2]:
        for span in ("0h", "6h"):
            report = evaluate_window(codes, times, "48h", span, "hamming")
            orders = [by_row(codes[::step], times[::step], np.timedelta64(int(span[:-1]), "h")) for step in (1, -1)]
            words = name if span == "0h" else f"{name}, within 6 h excluded"
            yield row(words, *(f"{precision:.4f}" for precision, _ in orders), f"{report.precision:.4f}")
            yield row(f"{words}, at 1", *(f"{first:.4f}" for _, first in orders), f"{report.precision_at[1]:.4f}")


def by_row(codes: NDArray[np.uint8], times: NDArray, excluded: np.timedelta64) -> tuple[float, float]:
    """Precision, and that of the nearest alone, where equal distances are in order of rows."""
    precision, first = [], []
    for i in range(len(codes)):
        apart = np.abs(times - times[i])
        allowed = np.flatnonzero((apart > excluded) & (np.arange(len(codes)) != i))
        order = np.argsort(np.bitwise_count(codes[allowed] ^ codes[i]).sum(axis=1), kind="stable")
        hits = (apart[allowed] <= HALF_WINDOW)[order]
        precision.append(hits[: hits.sum()].mean())
        first.append(hits[0])
    return float(np.mean(precision)), float(np.mean(first))


def classes(folders: list[str]) -> Iterator[str]:
    times, found = representations(folders[0], ("solar", "solar-paper"))
    flux = np.array([unsigned_flux(path) for path in find_images(folders)[0]])
    table: dict[str, list[str]] = {}
    for n, names in NAMES.items():
        labels = np.array(names)[np.searchsorted(np.quantile(flux, np.arange(1, n) / n), flux)]
        for name, vectors, metric in found:
            report = evaluate_classes(vectors, labels, times, 10, metric)
            table.setdefault(name, []).append(within(report.accuracy, report.ci95))
        table.setdefault("chance; by the calendar alone", []).append(f"{report.chance:.3f}; {report.calendar:.3f}")
    yield from head("", *(", ".join(names) for names in NAMES.values()))
    yield from (row(name, *cells) for name, cells in table.items())


def seed_2(folders: list[str]) -> Iterator[str]:
    """The years once more, by solar-seed-2.onnx: `make solar` with another seed."""
    yield from years(folders, ["solar-seed-2.onnx"])


TABLES = {each.__name__: each for each in (years, seed_2, models, suns, ties, classes)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solar_encoders", description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("frames", nargs="*")
    args = parser.parse_args()
    if bool(args.frames) == (args.table == "suns"):
        sys.exit(f"{args.table}: see {parser.prog}'s first lines for what it takes")
    for line in TABLES[args.table](args.frames):
        print(line, flush=True)


if __name__ == "__main__":
    main()
