"""The embedded default: the whole way from images to a report, on a Sun and on radio galaxies that are simulated."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fasthash import plots
from fasthash._progress import Progress
from fasthash._storage import atomic_write
from fasthash._version import __version__
from fasthash.catalog import Catalog, Hit, Rows
from fasthash.encoder import load_encoder
from fasthash.errors import FastHashError
from fasthash.evaluation import WindowReport, distances_in_time, evaluate_window, evaluate_windows
from fasthash.io import read_image
from fasthash.radio.dataset import read_dataset
from fasthash.radio.retrieval import Retrieval
from fasthash.radio.simulator import write_galaxies
from fasthash.ranking import RankingReport
from fasthash.solar.magnetogram import orient
from fasthash.solar.simulator import simulate

# The one that searches and is drawn, and the paper's network to compare it with.
ENCODER, BASELINE = "solar", "solar-paper"
# Two solar rotations near the maximum of cycle 24, with a seed that no shipped encoder was trained on.
START, DAYS, CADENCE_MINUTES, SIZE, SEED = "2014-03-01", 55, 120, 256, 2026
# And radio galaxies: the shipped encoders have only seen real ones.
RADIO_ENCODERS, GALAXIES = ("radio", "radio-8"), 600
_MARK = ".fasthash-demo"  # what we may clear when run again
_REPORT, _PICTURES = "report.json", ("gallery.png", "evaluation.png", "radio.png")


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
    windows = timed("evaluate", lambda: _evaluate(ENCODER, rows) | _evaluate(BASELINE, baseline))
    timed("draw", lambda: _draw(out, query, hits, rows, next(iter(windows.values()))))
    rankings = timed("radio galaxies", lambda: _radio(out))
    summary = {
        "fasthash_version": __version__,
        "data": f"SIMULATED: {len(frames)} frames from {START}, every {CADENCE_MINUTES} min, {SIZE} px, seed {SEED}",
        "encoder": ENCODER,
        "protocol": "48-h window (24 h either side), k = number of similar images, the query itself never counts",
        "evaluation": {name: report.to_dict() for name, report in windows.items()},
        "radio_data": f"SIMULATED: {GALAXIES} radio galaxies of four classes, seed {SEED}",
        "radio_evaluation": {name: report.to_dict() for name, report in rankings.items()},
        "search": {"query": query, "exclude_within_hours": 12, "results": [hit.to_dict() for hit in hits]},
        "seconds": {step: round(value, 3) for step, value in seconds.items()},
        "pictures": list(_PICTURES),
    }
    with atomic_write(out / _REPORT) as file:
        file.write(json.dumps(summary, indent=2).encode())
    return _summary(out, windows, rankings, sum(seconds.values()))


def _clear(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        if not (out / _MARK).is_file():
            raise FastHashError(f"{out}: holds something else than an earlier demo; name another folder by --out")
        for name in ("frames", "catalog", "catalog-paper", "galaxies"):
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


def _radio(out: Path) -> dict[str, RankingReport]:
    write_galaxies(out / "galaxies", GALAXIES, SEED, progress=Progress("simulated"))
    galaxies = read_dataset(out / "galaxies")
    reports = {}
    for name in RADIO_ENCODERS:
        show = Progress(f"encoded by {name}")
        found = Retrieval(load_encoder(name), galaxies.split("test"), galaxies.split("train"), progress=show)
        reports[name] = found.report()
        if name == RADIO_ENCODERS[0]:
            title = f"Simulated radio galaxies: nearest by {name}; framed: of another class"
            plots.galleries(found.gallery(reports[name]), out / _PICTURES[2], title=title)
    return reports


def _draw(out: Path, query: str, hits: list[Hit], rows: Rows, report: WindowReport) -> None:
    image = read_image(query)
    pictures = [plots.Picture(orient(read_image(hit.path)), hit.time, hit.label, hit.distance) for hit in hits]
    gallery, sheet = (out / name for name in _PICTURES[:2])
    title = f"Simulated Sun: nearest frames by {ENCODER}, none within 12 h of the query"
    plots.gallery(plots.Picture(orient(image), image.time), pictures, gallery, title=title)
    by_window, pairs = evaluate_windows(rows.hashes, rows.times), distances_in_time(rows.hashes, rows.times)
    plots.evaluation_sheet(report, by_window, *pairs, sheet, title=f"{ENCODER} on a simulated Sun, 48 h window")


def _summary(out: Path, windows: dict[str, WindowReport], rankings: dict[str, RankingReport], seconds: float) -> str:
    def line(name: str, value: float, report: Any) -> str:
        low, high = report.ci95
        return f"{name:<42} {value:9.3f}   {low:.3f} to {high:.3f}   {report.chance:.3f}"

    return "\n".join(
        [
            f"{'simulated Sun, 48-h window':<42} precision   95 % interval    chance",
            *(line(name, report.precision, report) for name, report in windows.items()),
            f"{'simulated radio galaxies':<42}       mAP   95 % interval    chance",
            *(line(f"{name}, code, hamming", report.map, report) for name, report in rankings.items()),
            f"{seconds:.0f} s; report and pictures: {out}/{', '.join([_REPORT, *_PICTURES])}",
        ]
    )
