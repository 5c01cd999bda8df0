"""The commands reproduce solar and reproduce radio: the papers' baselines and our encoders, side by side."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fasthash._progress import Progress
from fasthash._version import __version__
from fasthash.cli._common import INPUT, READING, THREADS, limits, print_json, say, verb
from fasthash.cli.radio import DATASET, chosen
from fasthash.errors import ArgumentError, EncoderError, FastHashError, ReadError

_REPORT, _PICTURE = "report.json", "comparison.png"


def add_solar(verbs: Any) -> None:
    parser = verb(
        verbs,
        "solar",
        _solar,
        "Compare representations of the Sun by the window protocol: the papers' baselines, histograms, PCA, LSH, ITQ "
        "and our encoders, on the same frames. All are fitted to the frames they are judged on, our encoders excepted. "
        "Without --frames a series is simulated, and the table says so; a few minutes.",
        "reproduce solar --frames hmi --out comparison",
        READING,
    )
    parser.add_argument("--frames", nargs="+", metavar="INPUT", help=f"{INPUT} (default: a simulated series)")
    _add_common(parser)


def _solar(args: argparse.Namespace) -> None:
    from fasthash.io import find_images
    from fasthash.solar.reproduce import reproduce_solar

    out, encoders = _prepare(args, ("solar", "solar-paper"))
    for encoder in encoders:
        if encoder.timeless:
            raise EncoderError(f"{encoder.source}: not an encoder of the Sun")
    frames, problems = find_images(args.frames) if args.frames else (None, [])
    if frames == []:
        raise ReadError(problems[-1])
    report, rows = reproduce_solar(frames, encoders, limits(args), Progress)
    report["left_out"] = [*problems, *report["left_out"]]
    counts = f"{report['n_queries']} queries, {report['si_mean']:.1f} similar frames each"
    columns = {"precision": ("precision", "chance"), "6 h apart": ("precision_6h", "chance_6h")}
    _finish(args, out, {"system": "solar", **report}, rows, counts, columns)


def add_radio(verbs: Any) -> None:
    parser = verb(
        verbs,
        "radio",
        _radio,
        "Compare representations of radio galaxies by mean average precision: the paper's triplets, COSFIRE-like "
        "filters, ImageNet features, random projections, ITQ and our encoders. Queries that stand in the reference are "
        "left out. Without sets, galaxies are simulated, and the table says so; a few minutes.",
        "reproduce radio --reference data.zip --query data.zip --out comparison",
        READING,
        THREADS,
    )
    for name in ("reference", "query"):
        parser.add_argument(f"--{name}", metavar="SET", help=f"{DATASET} (default: simulated galaxies)")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="torchvision's DenseNet-161 (default: from its cache, else those rows are skipped)",
    )
    _add_common(parser)


def _radio(args: argparse.Namespace) -> None:
    from fasthash.radio.reproduce import reproduce_radio
    from fasthash.radio.retrieval import radio_encoder

    if (args.reference is None) != (args.query is None):
        raise ArgumentError("--reference, --query: expected both, or neither for simulated galaxies")
    out, encoders = _prepare(args, ("radio", "radio-8"))
    encoders = [radio_encoder(encoder) for encoder in encoders]
    reference, query = (chosen(name, args) if args.reference else None for name in ("reference", "query"))
    report, rows = reproduce_radio(reference, query, encoders, args.weights, Progress)
    if args.reference:
        sources = dict.fromkeys(Path(path).name for path in (args.reference, args.query))
        report["data"] = f"{', '.join(sources)}: {report['data']}"
    counts = f"{report['n_query']} queries, {report['n_reference']} reference images"
    columns = {"mAP": ("map", "chance"), "first 100": ("map_top100", "chance_top100")}
    _finish(args, out, {"system": "radio", **report}, rows, counts, columns)


# ---- what both share -----------------------------------------------------------------------------------------------


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--encoder", nargs="+", default=[], metavar="FILE", help="encoders of your own, or shipped ones, beside ours"
    )
    parser.add_argument("--out", metavar="DIR", help=f"folder for {_REPORT} and {_PICTURE} (default: none is written)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _prepare(args: argparse.Namespace, shipped: Sequence[str]) -> tuple[Path | None, list[Any]]:
    """The folder to write to, made before the long work begins, and the encoders, no name twice."""
    from fasthash.encoder import load_encoder

    encoders = [load_encoder(name) for name in dict.fromkeys([*shipped, *args.encoder])]
    names = [encoder.name for encoder in encoders]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ArgumentError(f"--encoder: two encoders are named {twice}")
    if args.out is None:
        return None, encoders
    out = Path(args.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FastHashError(f"--out {out}: cannot make this folder: {error.strerror}") from error
    return out, encoders


def _finish(
    args: argparse.Namespace,
    out: Path | None,
    report: dict[str, Any],
    rows: Sequence[Any],
    counts: str,
    columns: Mapping[str, tuple[str, str]],
) -> None:
    """Write the report and its picture where there is a folder for them, and print it.

    ``columns``: by heading, the score of a row that stands there, and the entry of the report that is its chance.
    """
    from fasthash.reproduce import write_report

    for line in report["left_out"]:
        say(f"left out: {line}")
    answer = {**report, "fasthash_version": __version__, "rows": [row.to_dict() for row in rows]}
    if out is not None:
        write_report(out / _REPORT, answer)
        _draw(out / _PICTURE, report, rows, columns)
    if args.json:
        print_json(answer)
    else:
        print(_table(report, rows, counts, columns))


def _table(report: Mapping[str, Any], rows: Sequence[Any], counts: str, columns: Mapping[str, tuple[str, str]]) -> str:
    width = max(len(row.method.name) for row in rows)
    (first, second), chances = columns, [report[chance] for _, chance in columns.values()]
    lines = [
        f"{report['data']}; {counts}",
        report["protocol"],
        f"{'representation':<{width}} {first:>9}   95 % interval   {second:>9} {'size':>12} {'us each':>9}  published",
    ]
    published = [row.method.published for row in rows if row.method.published and not row.skipped]
    sources = list(dict.fromkeys(each.source for each in published))
    for row in rows:
        if row.skipped:
            lines.append(f"{row.method.name:<{width}} {'-':>9}   skipped: {row.skipped}")
            continue
        (low, high), theirs = row.scores["ci95"], row.method.published
        beside = f"{theirs.score:.3f} [{1 + sources.index(theirs.source)}]" if theirs else ""
        values = [row.scores[score] for score, _ in columns.values()]
        line = f"{row.method.name:<{width}} {values[0]:>9.3f}   {low:.3f} to {high:.3f}   {values[1]:>9.3f}"
        lines.append(f"{line} {row.size_text:>12} {1e6 * row.seconds:>9.0f}  {beside}".rstrip())
    lines.append(f"{'chance':<{width}} {chances[0]:>9.3f}   {'':<14}   {chances[1]:>9.3f}")
    return "\n".join([*lines, *(f"[{i}] {source}" for i, source in enumerate(sources, start=1))])


def _draw(path: Path, report: Mapping[str, Any], rows: Sequence[Any], columns: Mapping[str, tuple[str, str]]) -> None:
    from fasthash import plots

    shown = [row for row in rows if not row.skipped]
    plots.comparison(
        [f"{row.method.name}, {row.size_text}" for row in shown],
        {heading: [row.scores[score] for row in shown] for heading, (score, _) in columns.items()},
        path,
        chance=report["chance"],
        interval=[row.scores["ci95"] for row in shown],
        published=[row.method.published and row.method.published.score for row in shown],
        title=report["data"],
    )
