"""The command evaluate solar: how well a catalog's hashes retrieve."""

import argparse
from collections.abc import Iterable
from typing import Any

import numpy as np

from fasthash._progress import Progress
from fasthash.cli._common import THREADS, add_metric, check_writable, print_json, verb
from fasthash.times import format_time, parse_span


def add_solar(verbs: Any) -> None:
    parser = verb(
        verbs,
        "solar",
        _evaluate_solar,
        "Precision and recall when frames close in time count as similar (the Sun turns slowly). "
        "Each image is a query in turn and never counts itself; as many are retrieved as there are similar ones.",
        "evaluate solar sun.catalog --exclude-within 6h --by cadence --plot evaluation.png --queries queries.csv",
        THREADS,
    )
    parser.add_argument("catalog", metavar="CATALOG")
    parser.add_argument("--window", default="48h", metavar="48h", help="full width: 48h is 24 h either side (default)")
    parser.add_argument("--exclude-within", default="0h", metavar="0h", help="take out what is this close to the query")
    add_metric(parser)
    parser.add_argument(
        "--by",
        action="append",
        choices=("cadence", "window"),
        default=[],
        help="also a table for thinner series (up to 12 h between frames), or for windows from 6 h to 96 h",
    )
    parser.add_argument("--queries", metavar="FILE.csv", help="write the counts of each query, and its precision")
    parser.add_argument(
        "--plot",
        metavar="FILE.png",
        help="draw precision against the number retrieved and the window, and distance against time",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _evaluate_solar(args: argparse.Namespace) -> None:
    from fasthash.catalog import Catalog
    from fasthash.evaluation import WINDOWS, evaluate_cadences, evaluate_window, evaluate_windows
    from fasthash.plots import SUFFIXES

    if args.plot:
        check_writable("--plot", args.plot, *SUFFIXES)
    if args.queries:
        check_writable("--queries", args.queries, ".csv")
    window = parse_span("--window", args.window)
    exclude = parse_span("--exclude-within", args.exclude_within)
    with Catalog.open(args.catalog) as catalog:
        rows = catalog.rows()
        name = catalog.encoder.name
    vectors = rows.vectors(args.metric)
    protocol = {"exclude_within": exclude, "metric": args.metric, "num_threads": args.threads}
    tables: dict[str, list[Any]] = {}
    if args.plot or "window" in args.by:
        windows = sorted({window, *(parse_span("--window", text) for text in WINDOWS)})
        tables["window"] = evaluate_windows(vectors, rows.times, windows, progress=Progress("queries"), **protocol)
    hours = window / np.timedelta64(1, "h")
    report = next((each for each in tables.get("window", []) if each.window_hours == hours), None)
    report = report or evaluate_window(vectors, rows.times, window, progress=Progress("queries"), **protocol)
    if "cadence" in args.by:
        tables["cadence"] = [report, *evaluate_cadences(vectors, rows.times, window=window, **protocol)]
    if args.queries:
        _write_queries(args.queries, rows, report)
    if args.plot:
        _draw_evaluation(args.plot, vectors, rows.times, report, tables["window"], f"{name}, {args.metric}")
    if args.json:
        series = {f"by_{what}": [each.to_dict() for each in tables[what]] for what in args.by}
        print_json({"encoder": name, "catalog": args.catalog, **report.to_dict(), **series})
    else:
        print(_window_table(name, report), _counts_table(rows, report), sep="\n\n")
        for what in dict.fromkeys(args.by):
            print(f"\n{_series_table(what, tables[what])}")


def _draw_evaluation(path: str, vectors: Any, times: Any, report: Any, by_window: Any, title: str) -> None:
    from fasthash import plots
    from fasthash.evaluation import distances_in_time

    reach = max(15 * 24, report.window_hours)
    hours, distances = distances_in_time(vectors, times, report.metric, reach)
    title = f"{title}, {report.window_hours:g} h window, within {report.exclude_within_hours:g} h excluded"
    plots.evaluation_sheet(report, by_window, hours, distances, path, title=title)


def _write_queries(path: str, rows: Any, report: Any) -> None:
    import csv
    import io

    from fasthash._storage import atomic_write

    text = io.StringIO(newline="")
    writer = csv.writer(text)
    counts = report.counts()
    writer.writerow(["path", "time", *counts, "precision", "recall"])
    numbers = zip(*counts.values(), report.query_precision, report.query_precision, strict=True)
    for row, values in zip(report.queries, numbers, strict=True):
        writer.writerow([rows.paths[row], format_time(rows.times[row]), *(f"{value:.10g}" for value in values)])
    with atomic_write(path) as file:
        file.write(text.getvalue().encode(errors="surrogateescape"))


def _window_table(name: str, report: Any) -> str:
    low, high = report.ci95
    left_out = report.n_images - report.n_queries
    lines = [
        f"{name}, {report.metric}: {report.n_queries} queries, {report.window_hours:g} h window, "
        f"within {report.exclude_within_hours:g} h excluded, {report.si_mean:.1f} similar images a query",
        f"precision   {report.precision:.3f}   (95 % interval {low:.3f} to {high:.3f}; chance {report.chance:.3f})",
        f"recall      {report.recall:.3f}",
    ]
    if left_out:
        lines.append(f"{left_out} of {report.n_images} images were no query: no time, or no other image in the window")
    if report.n_copies:
        same = "code" if report.metric == "hamming" else "hash"
        lines.append(f"{report.n_copies} of {report.n_images} images share their {same} with another")
    for k, value in report.precision_at.items():
        lines.append(f"at {k:<8} {value:.3f}   (best possible {report.ceiling_at[k]:.3f})")
    return "\n".join(lines)


def _counts_table(rows: Any, report: Any) -> str:
    """Like the paper's: some queries, evenly spread in time, and the mean of all."""
    counts = report.counts() | {"precision": report.query_precision, "recall": report.query_precision}
    by_time = np.argsort(rows.times[report.queries], kind="stable")
    shown = by_time[np.unique(np.linspace(0, len(by_time) - 1, 8).astype(int))]
    lines = [f"{'query, time (UTC)':<23}" + "".join(f" {name:>9}" for name in counts)]

    def line(title: str, values: Iterable[float]) -> str:
        *whole, precision, recall = values
        return f"{title:<23}" + "".join(f" {value:>9.1f}" for value in whole) + f" {precision:>9.3f} {recall:>9.3f}"

    for query in shown:
        time = format_time(rows.times[report.queries[query]])
        lines.append(line(time, (values[query] for values in counts.values())))
    lines.append(line(f"mean of {report.n_queries}", (values.mean() for values in counts.values())))
    return "\n".join(lines)


def _series_table(what: str, reports: Iterable[Any]) -> str:
    lines = [f"{what:<10} {'queries':>8} {'similar':>8} {'precision':>10}   95 % interval    chance"]
    for report in reports:
        minutes = 60 * report.window_hours if what == "window" else report.cadence_minutes
        span = f"{minutes:.3g} min" if minutes < 60 else f"{minutes / 60:.3g} h"
        low, high = report.ci95
        lines.append(
            f"{span:<10} {report.n_queries:>8} {report.si_mean:>8.1f} {report.precision:>10.3f}   "
            f"{low:.3f} to {high:.3f}   {report.chance:.3f}"
        )
    return "\n".join(lines)
