"""The embedded default: the whole way from magnetograms to a report, on a Sun that is simulated."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash import plots
from fasthash._progress import Progress
from fasthash._storage import atomic_write
from fasthash._version import __version__
from fasthash.catalog import Catalog, Hit, Rows
from fasthash.errors import FastHashError
from fasthash.evaluation import WindowReport, evaluate_window
from fasthash.index import knn_exact
from fasthash.io import read_image
from fasthash.solar.magnetogram import orient
from fasthash.solar.simulator import simulate

# The one that searches and is drawn, and the paper's network to compare it with.
ENCODER, BASELINE = "solar", "solar-paper"
# Two solar rotations near the maximum of cycle 24, with a seed that no shipped encoder was trained on.
START, DAYS, CADENCE_MINUTES, SIZE, SEED = "2014-03-01", 55, 120, 256, 2026
_MARK = ".fasthash-demo"  # what we may clear when run again
_REPORT = "report.json"


def run_demo(out: Path) -> str:
    """Simulate, encode, index, search, evaluate and draw into ``out``; returns a summary to print.

    Raises FastHashError where ``out`` holds anything but an earlier demo.
    """
    _clear(out)
    seconds: dict[str, float] = {}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        seconds[step] = time.perf_counter() - start
        return result

    frames = timed(
        "simulate",
        lambda: simulate(out / "frames", START, DAYS, CADENCE_MINUTES, SIZE, seed=SEED, progress=Progress("simulated")),
    )
    query = str(frames[len(frames) // 2])
    with Catalog.create(out / "catalog", ENCODER) as catalog:
        timed("encode and index", lambda: catalog.add(out / "frames", progress=Progress(f"encoded by {ENCODER}")))
        hits = timed("search", lambda: catalog.search(query, 11, exclude_within="12h"))
        rows = catalog.rows()
    with Catalog.create(out / "catalog-paper", BASELINE) as catalog:
        catalog.add(out / "frames", progress=Progress(f"encoded by {BASELINE}"))
        baseline = catalog.rows()
    reports = timed("evaluate", lambda: _evaluate(ENCODER, rows) | _evaluate(BASELINE, baseline))
    timed("draw", lambda: _draw(out, query, hits, rows, next(iter(reports.values()))))
    summary = {
        "fasthash_version": __version__,
        "data": f"SIMULATED: {len(frames)} frames from {START}, every {CADENCE_MINUTES} min, {SIZE} px, seed {SEED}",
        "encoder": ENCODER,
        "protocol": "48-h window (24 h either side), k = number of similar images, the query itself never counts",
        "evaluation": {name: report.to_dict() for name, report in reports.items()},
        "search": {"query": query, "exclude_within_hours": 12, "results": [vars(hit) for hit in hits]},
        "seconds": {step: round(value, 3) for step, value in seconds.items()},
        "pictures": ["gallery.png", "precision.png", "distance.png"],
    }
    with atomic_write(out / _REPORT) as file:
        file.write(json.dumps(summary, indent=2).encode())
    return _summary(out, reports, sum(seconds.values()))


def _clear(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        if not (out / _MARK).is_file():
            raise FastHashError(f"{out}: holds something else than an earlier demo; name another folder by --out")
        for name in ("frames", "catalog", "catalog-paper"):
            shutil.rmtree(out / name, ignore_errors=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / _MARK).touch()
    except OSError as error:
        raise FastHashError(f"{out}: cannot make this folder: {error.strerror}") from error


def _evaluate(encoder: str, rows: Rows) -> dict[str, WindowReport]:
    return {
        f"{encoder}, hash, l2": evaluate_window(rows.hashes, rows.times),
        f"{encoder}, hash, l2, within 6 h excluded": evaluate_window(rows.hashes, rows.times, exclude_within="6h"),
        f"{encoder}, code, hamming": evaluate_window(rows.codes, rows.times, metric="hamming"),
    }


def _draw(out: Path, query: str, hits: list[Hit], rows: Rows, report: WindowReport) -> None:
    pictures = [plots.Picture(_pixels(hit.path), hit.time, hit.label, hit.distance) for hit in hits]
    title = f"Simulated Sun: nearest frames by {ENCODER}, none within 12 h of the query"
    plots.gallery(plots.Picture(_pixels(query), read_image(query).time), pictures, out / "gallery.png", title=title)
    plots.precision_curve(
        report.curve,
        report.chance,
        out / "precision.png",
        interval=report.curve_ci95,
        ceiling=report.ceiling,
        si_mean=report.si_mean,
        title=f"{ENCODER} on a simulated Sun, 48-h window",
    )
    hours, distances = _against_time(rows, query)
    plots.distance_against_time(hours, distances, out / "distance.png", title="Distance from the query against time")


def _against_time(rows: Rows, query: str) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Hours from the query and distance from its hash, for every other frame."""
    row = rows.paths.index(query)
    distances, found = knn_exact(rows.hashes[row], rows.hashes, len(rows.paths))
    others = found[0][found[0] != row]
    hours = (rows.times[others] - rows.times[row]) / np.timedelta64(1, "h")
    return hours, distances[0][found[0] != row]


def _pixels(path: str) -> NDArray[np.float32]:
    return orient(read_image(path))


def _summary(out: Path, reports: dict[str, WindowReport], seconds: float) -> str:
    lines = [f"{'simulated Sun, 48-h window':<42} precision   95 % interval    chance"]
    for name, report in reports.items():
        low, high = report.ci95
        lines.append(f"{name:<42} {report.precision:9.3f}   {low:.3f} to {high:.3f}   {report.chance:.3f}")
    lines.append(f"{seconds:.0f} s; report and pictures: {out}/report.json, gallery.png, precision.png, distance.png")
    return "\n".join(lines)
