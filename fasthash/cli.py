"""The command line: one command a verb, no numerics.

Results go to stdout, progress and messages to stderr. Exit status: 0 done; 1 failed, with one line ``error: ...``;
2 wrong usage.
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from fasthash._progress import Progress
from fasthash._version import __version__
from fasthash.errors import FastHashError
from fasthash.io import DEFAULT_LIMITS, Limits
from fasthash.times import format_time, parse_span, parse_time

_INPUT = "files, folders (searched recursively), globs and zips of FITS, JPEG, PNG, JPEG 2000 or .npy images"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):  # file names need not be valid text
            stream.reconfigure(errors="backslashreplace")
    args = _parser().parse_args(argv, argparse.Namespace(debug=False))
    if not args.debug:
        warnings.simplefilter("ignore")
    try:
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone; point stdout elsewhere, or its flush at exit fails again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        _say("error: interrupted")
        return 130
    except Exception as error:
        if args.debug:
            raise
        _say(f"error: {_describe(error)}")
        return 1
    return 0


def _describe(error: Exception) -> str:
    if isinstance(error, FastHashError):
        return str(error)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no details'} (--debug shows where)"


def _say(line: str) -> None:
    print(_printable(line), file=sys.stderr, flush=True)


def _printable(text: str) -> str:
    """One line, whatever is in a file's name: line breaks, escapes and bytes that are no text are spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _print_json(value: Any) -> None:
    print(json.dumps(value, allow_nan=False))


# ---- commands ------------------------------------------------------------------------------------------------------


def _simulate(args: argparse.Namespace) -> None:
    from fasthash.solar.simulator import simulate

    series = args.out, args.start, args.days, args.cadence, args.size, args.active_regions, args.seed
    files = simulate(*series, Progress("simulated"), args.rotation, args.missing)
    print(f"{len(files)} simulated magnetograms in {args.out}")


def _fetch_solar(args: argparse.Namespace) -> None:
    from fasthash.solar.fetch import fetch

    def clear() -> None:
        if sys.stderr.isatty():  # on a terminal the line of progress may still be open
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def say(line: str) -> None:
        clear()
        _say(line)

    report = fetch(args.out, args.start, args.end, args.cadence, args.email, args.series, Progress("fetched"), say)
    for why in dict.fromkeys(report.unusable.values()):
        say(f"left out, {why}: {_some([t_rec for t_rec, reason in report.unusable.items() if reason == why])}")
    if report.poor:
        say(f"fetched, but HMI calls the quality poor: {_some(report.poor)}")
    there = f", {report.present} were there already" if report.present else ""
    clear()
    print(f"{args.out}: {len(report.fetched)} magnetograms of {args.series} fetched{there}", flush=True)
    if report.failed:
        t_rec, why = next(iter(report.failed.items()))
        count = len(report.failed)
        raise FastHashError(f"{count} frames could not be had, the first {t_rec}: {why}; run it again to go on")
    if not report.fetched and not report.present:
        raise FastHashError(f"{args.series} has no usable frame from {args.start} to {args.end}")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _info(args: argparse.Namespace) -> None:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from fasthash._validation import available_cores
    from fasthash.encoder import load_encoder, shipped_encoders
    from fasthash.hamming import simd_level

    packages = ["numpy", "numba", "onnxruntime", "nmslib", "astropy", "pillow", "matplotlib", "sunpy", "torch"]
    versions = {"fasthash": __version__, "python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    encoders: dict[str, dict[str, Any]] = {}
    for name in shipped_encoders():
        encoder = load_encoder(name)
        encoders[name] = {"dim": encoder.dim, "n_bits": encoder.n_bits, "fingerprint": encoder.fingerprint}
    machine, level, threads = platform.machine(), simd_level(), available_cores()
    if args.json:
        facts = {"machine": machine, "simd_level": level, "threads": threads, "encoders": encoders}
        _print_json({"versions": versions, **facts})
        return
    print(f"fasthash {__version__} on {machine}, {level}, {threads} threads")
    for name, about in encoders.items():
        print(f"encoder {name}: {about['dim']} floats, {about['n_bits']} bits, {about['fingerprint'][:12]}")
    print(", ".join(f"{package} {number}" for package, number in versions.items() if package != "fasthash"))
    missing = [package for package in packages if package not in versions]
    if missing:
        print(f"not installed: {', '.join(missing)}")


def _train_solar(args: argparse.Namespace) -> None:
    from fasthash._training import check_installed
    from fasthash._validation import check_choice

    check_choice("--preset", args.preset, ("paper", "best"))
    check_installed()
    _check_writable("-o", args.output, ".onnx")
    (_train_best if args.preset == "best" else _train_paper)(args)


def _train_paper(args: argparse.Namespace) -> None:
    from fasthash.descriptor import GridHistogram
    from fasthash.solar import autoencoder
    from fasthash.solar.magnetogram import MagnetogramHistogram

    front_end = MagnetogramHistogram(GridHistogram())
    rows = [row for _, row in _describe_all(front_end, args.inputs, args)]
    shares = np.stack(rows)
    show = Progress("trained")
    training = autoencoder.train(
        shares, args.preset, args.epochs, args.seed, lambda epoch, n, loss: show(epoch, n, f"loss {loss:.5f}")
    )
    encoder = autoencoder.export(args.output, training, front_end, shares, Path(args.output).stem, _data(args))
    dead = encoder.metadata["training"]["dead_units"]
    print(
        f"{args.output}: preset {args.preset}, {len(rows)} images, {args.epochs} epochs, "
        f"loss {training.losses[-1]:.5f}, {dead} of {encoder.dim} units dead"
    )


def _train_best(args: argparse.Namespace) -> None:
    from fasthash._validation import check_int
    from fasthash.solar import metric_learning
    from fasthash.solar.field_map import FieldMap
    from fasthash.solar.worlds import find_worlds, read_world

    check_int("--epochs", args.epochs, 1)
    worlds, inputs = find_worlds(args.inputs)
    series = [read_world(path) for path in worlds]
    if inputs:
        # Frames of one folder are one Sun, whatever their names: in the order of time.
        found = _describe_all(FieldMap(metric_learning.CELLS), inputs, args)
        _warn(f"{image.path}: left out, since its time is unknown" for image, _ in found if np.isnat(image.time))
        found = [item for item in found if not np.isnat(item[0].time)]
        found.sort(key=lambda item: (os.path.dirname(item[0].path), item[0].time))
        if not found:
            raise FastHashError("preset best learns from time, and no image tells when it was taken")
        series.append((np.stack([row for _, row in found]), np.array([image.time for image, _ in found])))
    maps, times = (np.concatenate(parts) for parts in zip(*series, strict=True))
    show, checkpoint = Progress("trained"), Path(f"{args.output}.checkpoint")
    training = metric_learning.train(
        maps,
        times,
        metric_learning.steps_for(len(maps), args.epochs),
        args.seed,
        lambda step, n, loss: show(step, n, f"loss {loss:.4f}"),
        checkpoint,
        args.threads,
    )
    metric_learning.export(args.output, training, Path(args.output).stem, _data(args))
    checkpoint.unlink(missing_ok=True)
    print(f"{args.output}: preset best, {len(maps)} images, {training.steps} steps, loss {training.loss:.4f}")
    if training.quality:
        q = training.quality
        print(
            f"{q.frames} frames held out: precision {q.floats:.3f} (within 6 h excluded {q.floats_6h:.3f}), "
            f"{metric_learning.N_BITS} bits {q.bits:.3f} ({q.bits_6h:.3f}), chance {q.chance:.3f}"
        )


def _describe_all(front_end: Any, inputs: Sequence[str], args: argparse.Namespace) -> list[tuple[Any, Any]]:
    """Images (without their pixels) and rows of network input of all that can be used; the rest is reported."""
    from fasthash.encoder import Failure, describe_files
    from fasthash.io import find_images

    paths, problems = find_images(inputs)
    described = []
    progress = Progress("described")
    for done, item in enumerate(describe_files(front_end, paths, args.threads, _limits(args)), start=1):
        progress(done, len(paths))
        if isinstance(item, Failure):
            problems.append(item.message)
        else:
            described.append(item)
    _report_skipped(problems, done=len(described))
    return described


def _data(args: argparse.Namespace) -> str:
    return args.data or ", ".join(Path(item).name for item in args.inputs)


def _encode(args: argparse.Namespace) -> None:
    from fasthash._storage import atomic_write
    from fasthash.catalog import remarks_on
    from fasthash.encoder import Encoded, Failure, load_encoder

    _check_writable("-o", args.output, ".npz")
    encoder = load_encoder(args.encoder)
    paths, problems = _find(args)
    encoded: list[Encoded] = []
    seen: dict[str, str] = {}
    progress = Progress("encoded")
    for done, item in enumerate(encoder.encode_files(paths, args.threads, _limits(args)), start=1):
        progress(done, len(paths))
        if isinstance(item, Failure):
            problems.append(item.message)
        else:
            encoded.append(item)
            _warn(f"{item.image.path}: {text}" for text in remarks_on(item))
            twin = seen.setdefault(item.image.digest, item.image.path)
            if twin != item.image.path:
                _warn([f"{item.image.path}: the same content as {twin}"])
    _report_skipped(problems, done=len(encoded))
    hashes = np.stack([item.hash for item in encoded])
    arrays: dict[str, Any] = {
        "hashes": hashes,
        "codes": encoder.binarize(hashes),
        "paths": np.array([item.image.path for item in encoded], np.str_),
        "times": np.array([format_time(item.image.time) for item in encoded], np.str_),
        "labels": np.array([""] * len(encoded), np.str_),
    }
    with atomic_write(args.output) as file:
        np.savez(file, **arrays)
    print(f"{args.output}: {len(encoded)} images, hashes {hashes.shape[1]} floats, codes {encoder.n_bits} bits")


def _build(args: argparse.Namespace) -> None:
    from fasthash.catalog import Catalog

    was_there = Path(args.output).is_dir()
    catalog = Catalog.create(args.output, args.encoder)
    try:
        _add_to(catalog, args)
    except BaseException:
        with catalog:
            empty = len(catalog) == 0
        if empty:  # nothing was indexed: leave all as it was
            shutil.rmtree(args.output, ignore_errors=True)
            if was_there:
                Path(args.output).mkdir()
        raise
    catalog.close()


def _add(args: argparse.Namespace) -> None:
    from fasthash.catalog import Catalog

    with Catalog.open(args.catalog) as catalog:
        _add_to(catalog, args)


def _add_to(catalog: Any, args: argparse.Namespace) -> None:
    report = catalog.add(args.inputs, args.threads, _limits(args), Progress("encoded"))
    _warn(report.remarks)
    _warn(f"{path}: its content is in the catalog already" for path in report.known)
    _report_skipped(report.failures, done=len(report.added) + len(report.known))
    print(f"{catalog.path}: {len(report.added)} images added, {len(catalog)} in all, encoder {catalog.encoder.name}")


def _search(args: argparse.Namespace) -> None:
    from fasthash.catalog import Catalog
    from fasthash.io import read_image
    from fasthash.plots import SUFFIXES

    if args.gallery:
        _check_writable("--gallery", args.gallery, *SUFFIXES)
    exclude = parse_span("--exclude-within", args.exclude_within) if args.exclude_within else None
    between = None
    if args.between:
        between = parse_time("--between", args.between[0]), parse_time("--between", args.between[1])
    image = read_image(args.image, _limits(args))
    with Catalog.open(args.catalog) as catalog:
        hits = catalog.search(image, args.k, args.metric, exclude, between, args.label)
        if args.gallery:
            _draw_gallery(args.gallery, image, hits, catalog.encoder.name, args.metric)
    if args.json:
        query = {"query": args.image, "time": format_time(image.time)}
        _print_json({**query, "metric": args.metric, "results": [asdict(hit) for hit in hits]})
        return
    print(f"{'rank':>4}  {'distance':>10}  {'time (UTC)':<23}  {'label':<8}  path")
    for hit in hits:
        print(f"{hit.rank:>4}  {hit.distance:>10.5g}  {hit.time:<23}  {hit.label:<8}  {_printable(hit.path)}")


def _draw_gallery(path: str, query: Any, hits: Iterable[Any], encoder: str, metric: str) -> None:
    from fasthash import plots
    from fasthash.io import read_image
    from fasthash.solar.magnetogram import orient

    pictures = []
    for hit in hits:
        try:
            pixels = orient(read_image(hit.path))
        except FastHashError as error:
            _warn([str(error)])
            pixels = None
        pictures.append(plots.Picture(pixels, hit.time, hit.label, hit.distance))
    title = f"Nearest by {metric} distance of {encoder} hashes"
    plots.gallery(plots.Picture(orient(query), format_time(query.time)), pictures, path, title=title)


def _evaluate_solar(args: argparse.Namespace) -> None:
    from fasthash.catalog import Catalog
    from fasthash.evaluation import WINDOWS, evaluate_cadences, evaluate_window, evaluate_windows
    from fasthash.plots import SUFFIXES

    if args.plot:
        _check_writable("--plot", args.plot, *SUFFIXES)
    if args.queries:
        _check_writable("--queries", args.queries, ".csv")
    window = parse_span("--window", args.window)
    exclude = parse_span("--exclude-within", args.exclude_within)
    with Catalog.open(args.catalog) as catalog:
        rows = catalog.rows()
        name = catalog.encoder.name
    vectors = rows.codes if args.metric == "hamming" else rows.hashes
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
        _print_json({"encoder": name, "catalog": args.catalog, **report.to_dict(), **series})
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


def _regions(args: argparse.Namespace) -> None:
    from fasthash.io import read_image
    from fasthash.plots import SUFFIXES
    from fasthash.solar.regions import draw_regions, find_regions

    if args.picture:
        _check_writable("--picture", args.picture, *SUFFIXES)
    table = find_regions(read_image(args.file, _limits(args)))
    if args.picture:
        draw_regions(table, args.picture)
    if args.json:
        _print_json(table.to_dict())
    elif not table:
        print(f"{_printable(args.file)}: no magnetic regions")
    else:
        print(_region_lines(table))


def _region_lines(table: Any) -> str:
    lines = [f"{'#':>4}  latitude  longitude  area (MSH)  flux (Mx)  signed (Mx)  peak (G)  polarities touch"]
    for region in table:
        row = region.to_dict()
        where = f"{row['latitude_deg']:>+8.1f}  {row['longitude_deg']:>+9.1f}  {row['area_msh']:>10.0f}"
        flux = f"{row['unsigned_flux_mx']:>9.2e}  {row['signed_flux_mx']:>+11.2e}  {row['peak_field_g']:>+8.0f}"
        lines.append(f"{row['number']:>4}  {where}  {flux}  {'yes' if row['polarities_touch'] else 'no'}")
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


def _evaluate_classes(args: argparse.Namespace) -> None:
    from fasthash.catalog import Catalog
    from fasthash.classification import evaluate_classes

    block, gap = parse_span("--block", args.block), parse_span("--gap", args.gap)
    with Catalog.open(args.catalog) as catalog:
        rows = catalog.rows()
        name = catalog.encoder.name
    vectors = rows.codes if args.metric == "hamming" else rows.hashes
    labels = _labels(rows, args)
    report = evaluate_classes(
        vectors, labels, rows.times, args.k, args.metric, block=block, gap=gap, num_threads=args.threads
    )
    if args.json:
        _print_json({"encoder": name, "catalog": args.catalog, **report.to_dict()})
        return
    low, high = report.ci95
    print(
        f"{name}, {report.metric}, k = {report.k}: {report.n_tested} of {report.n_images} images in {report.n_blocks} "
        f"blocks of {args.block}, learnt from those {args.gap} away or more\n"
        f"accuracy    {report.accuracy:.3f}   (95 % interval {low:.3f} to {high:.3f}; chance {report.chance:.3f}, "
        f"by the calendar alone {report.calendar:.3f})\n"
        f"balanced    {report.balanced_accuracy:.3f}   (mean over the classes; chance {1 / len(report.classes):.3f})\n"
    )
    width = max(12, *(len(label) for label in report.classes.tolist()))
    print(f"{'is / taken for':<{width + 4}}" + "".join(f" {label:>{width}}" for label in report.classes))
    for label, counts in zip(report.classes, report.confusion, strict=True):
        print(f"{label:<{width + 4}}" + "".join(f" {count:>{width}}" for count in counts))


def _classify(args: argparse.Namespace) -> None:
    from fasthash.catalog import Catalog
    from fasthash.classification import KNNClassifier
    from fasthash.encoder import Encoded, Failure

    paths, problems = _find(args)
    with Catalog.open(args.catalog) as catalog:
        rows, encoder = catalog.rows(), catalog.encoder
    labels = _labels(rows, args)
    known = np.flatnonzero(labels != "")
    hamming = args.metric == "hamming"
    classifier = KNNClassifier(args.k, args.metric)
    classifier.fit((rows.codes if hamming else rows.hashes)[known], labels[known])
    images: list[Encoded] = []
    for item in encoder.encode_files(paths, args.threads, _limits(args)):
        if isinstance(item, Failure):
            problems.append(item.message)
        else:
            images.append(item)
    _report_skipped(problems, done=len(images))
    hashes = np.stack([item.hash for item in images])
    queries = encoder.binarize(hashes) if hamming else hashes
    predicted, votes = classifier.predict(queries, args.threads), classifier.votes(queries, args.threads)
    results: list[dict[str, Any]] = [
        {
            "path": item.image.path,
            "time": format_time(item.image.time),
            "label": str(label),
            "votes": dict(zip(classifier.classes.tolist(), counts.tolist(), strict=True)),
        }
        for item, label, counts in zip(images, predicted, votes, strict=True)
    ]
    if args.json:
        _print_json({"catalog": args.catalog, "metric": args.metric, "k": args.k, "results": results})
        return
    print(f"{'label':<12} {'votes':>9}  path")
    for result in results:
        counts = result["votes"]
        share = f"{counts[result['label']]} of {sum(counts.values())}"
        print(f"{_printable(result['label']):<12} {share:>9}  {_printable(result['path'])}")


def _labels(rows: Any, args: argparse.Namespace) -> Any:
    """The label of every row of a catalog: its own, or that of the table --labels."""
    from fasthash.classification import read_labels

    if not args.labels:
        if not (rows.labels != "").any():
            raise FastHashError(f"{args.catalog}: no image in it has a label; give them by --labels")
        return rows.labels
    table = read_labels(args.labels)
    labels = np.array([table.get(os.path.abspath(path), "") for path in rows.paths], np.str_)
    if not (labels != "").any():
        raise FastHashError(f"{args.labels}: labels none of the {len(labels)} images of {args.catalog}")
    return labels


def _demo(args: argparse.Namespace) -> None:
    from fasthash.demo import run_demo

    print(run_demo(Path(args.out)))


# ---- shared by commands --------------------------------------------------------------------------------------------


def _limits(args: argparse.Namespace) -> Limits:
    return Limits(max_pixels=args.max_pixels, max_bytes=max(8 * args.max_pixels + 2**24, DEFAULT_LIMITS.max_bytes))


def _find(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    from fasthash.io import find_images

    return find_images(args.inputs)


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        _say(f"warning: {line}")


def _check_writable(option: str, path: str, *suffixes: str) -> None:
    """Refuse a file that could not be written before the long work begins, not after it."""
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        raise FastHashError(f"{option} {path}: expected a name ending in {' or '.join(suffixes)}")
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise FastHashError(f"{option} {path}: {'it is a folder' if target.is_dir() else 'its folder does not exist'}")


def _report_skipped(problems: Sequence[str], done: int) -> None:
    """Name what could not be used; where nothing could, that is an error."""
    if done:
        for line in problems:
            _say(f"skipped: {line}")
        return
    for line in problems[:-1]:
        _say(f"skipped: {line}")
    if len(problems) > 1:
        raise FastHashError(f"nothing could be done with any of {len(problems)} inputs, the last being {problems[-1]}")
    raise FastHashError(problems[-1] if problems else "no input")


# ---- arguments -----------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2, f"error: {message} (fasthash {self.prog.partition(' ')[2]} --help)\n".replace("  ", " "))


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    # No default here: that of a command would undo a --debug before the command.
    common.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
    )
    threads = argparse.ArgumentParser(add_help=False)
    threads.add_argument("--threads", type=int, default=-1, metavar="N", help="threads; -1: one a core (default)")
    reading = argparse.ArgumentParser(add_help=False)
    reading.add_argument(
        "--max-pixels",
        type=_positive_int,
        default=DEFAULT_LIMITS.max_pixels,
        metavar="N",
        help="refuse images of more pixels, before any is decoded (default: %(default)s)",
    )
    parser = _Parser(
        prog="fasthash",
        description="Find, in milliseconds and on a CPU, the images of an archive that are most like a given one.",
        epilog="Start with `fasthash demo`; `fasthash COMMAND --help` explains a command, with an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"fasthash {__version__}")
    verbs = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def verb(
        parent: Any, name: str, run: Callable[[argparse.Namespace], None], text: str, example: str, *parents: Any
    ) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = parent.add_parser(
            name,
            help=text[0].lower() + text[1:].partition(". ")[0].rstrip("."),
            description=text,
            epilog=f"example:\n  fasthash {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[common, *parents],
        )
        made.set_defaults(run=run)
        return made

    demo = verb(
        verbs,
        "demo",
        _demo,
        "Simulate a Sun, encode, index, search, evaluate and draw it.",
        "demo --out fasthash-demo",
    )
    demo.add_argument(
        "--out", default="fasthash-demo", metavar="DIR", help="folder for files and pictures (%(default)s)"
    )

    simulate = verb(
        verbs,
        "simulate",
        _simulate,
        "Simulate full-disk magnetograms as FITS files that SunPy opens as HMI maps.",
        "simulate frames --start 2014-01-01 --days 10 --cadence 120 --size 256 --seed 1",
    )
    simulate.add_argument("out", metavar="OUT", help="folder for the files")
    simulate.add_argument("--start", required=True, metavar="ISO", help="first frame, UTC: 2014-01-01T00:00")
    simulate.add_argument("--days", required=True, type=float, metavar="N", help="length of the series")
    simulate.add_argument("--cadence", required=True, type=float, metavar="MIN", help="minutes between frames")
    simulate.add_argument("--size", required=True, type=int, metavar="PX", help="pixels a side")
    simulate.add_argument(
        "--active-regions", metavar="FILE", help="table of real active regions (default: drawn at random)"
    )
    simulate.add_argument("--seed", type=int, default=0, metavar="S", help="of the random field (default: %(default)s)")
    simulate.add_argument(
        "--rotation", type=float, default=0.0, metavar="DEG", help="CROTA2; HMI delivers 180 (default: 0, north up)"
    )
    simulate.add_argument(
        "--missing", type=float, default=0.0, metavar="SHARE", help="of each disk, lost in blocks of NaN (default: 0)"
    )

    fetch = _group(verbs, "fetch", "Get real images from their archives.")
    hmi = verb(
        fetch,
        "solar",
        _fetch_solar,
        "Get magnetograms of SDO/HMI from JSOC, by SunPy (needs fasthash[solar] and the network). "
        "Register your e-mail address there first: http://jsoc.stanford.edu/ajax/register_email.html . "
        "Run it again after any interruption: it goes on. A frame of 4096 x 4096 pixels has about 14 MB.",
        "fetch solar frames --start 2014-05-01 --end 2014-06-01 --cadence 1h --email you@example.org",
    )
    hmi.add_argument("out", metavar="OUT", help="folder for the files, one a frame, named by T_REC")
    hmi.add_argument("--start", required=True, metavar="ISO", help="first frame, UTC: 2014-05-01T00:00")
    hmi.add_argument("--end", required=True, metavar="ISO", help="no frame from here on, UTC")
    hmi.add_argument("--cadence", required=True, metavar="1h", help="time between frames: 12min, 1h, 1d")
    hmi.add_argument("--email", required=True, metavar="ADDRESS", help="your address, as registered at JSOC")
    hmi.add_argument(
        "--series",
        default="hmi.M_720s",
        metavar="NAME",
        help="hmi.M_720s: every 12 min, averaged (default); hmi.M_45s: every 45 s, noisier",
    )

    info = verb(verbs, "info", _info, "Show versions, instruction set, threads and encoders.", "info --json")
    info.add_argument("--json", action="store_true", help="print one JSON object")

    train = _group(verbs, "train", "Train an encoder (needs fasthash[train]).")
    solar = verb(
        train,
        "solar",
        _train_solar,
        "Train a solar encoder on magnetograms and write it as ONNX.",
        "train solar frames -o my-sun.onnx --preset paper --epochs 40 --seed 1",
        threads,
        reading,
    )
    solar.add_argument(
        "inputs", nargs="+", metavar="INPUT", help=f"{_INPUT}; for best also folders of simulated worlds"
    )
    solar.add_argument("-o", "--output", required=True, metavar="FILE.onnx", help="the encoder to write")
    solar.add_argument("--preset", default="paper", metavar="NAME", help="recipe: paper (default), or best")
    solar.add_argument("--epochs", type=int, default=40, metavar="N", help="passes over the frames (default: 40)")
    solar.add_argument("--seed", type=int, default=0, metavar="S", help="of weights and order (default: 0)")
    solar.add_argument("--data", metavar="TEXT", help="what the images are, for the metadata (default: their names)")

    encode = verb(
        verbs,
        "encode",
        _encode,
        "Hash images into an .npz of hashes, codes, paths, times and labels.",
        "encode frames --encoder solar -o hashes.npz",
        threads,
        reading,
    )
    encode.add_argument("inputs", nargs="+", metavar="INPUT", help=_INPUT)
    _add_encoder(encode)
    encode.add_argument("-o", "--output", required=True, metavar="FILE.npz", help="file to write")

    build = verb(
        verbs,
        "build",
        _build,
        "Make a catalog of images.",
        "build frames --encoder solar -o sun.catalog",
        threads,
        reading,
    )
    build.add_argument("inputs", nargs="+", metavar="INPUT", help=_INPUT)
    _add_encoder(build)
    build.add_argument("-o", "--output", required=True, metavar="CATALOG", help="folder to make")

    add = verb(verbs, "add", _add, "Add images to a catalog.", "add sun.catalog new-frames", threads, reading)
    add.add_argument("catalog", metavar="CATALOG")
    add.add_argument("inputs", nargs="+", metavar="INPUT", help=_INPUT)

    search = verb(
        verbs,
        "search",
        _search,
        "Find the images of a catalog that are most like one image.",
        "search sun.catalog frame.fits -k 10 --exclude-within 12h --gallery hits.png",
        reading,
    )
    search.add_argument("catalog", metavar="CATALOG")
    search.add_argument("image", metavar="IMAGE")
    search.add_argument("-k", type=int, default=10, metavar="K", help="results wanted (default: 10)")
    _add_metric(search)
    search.add_argument("--exclude-within", metavar="12h", help="leave out what was taken this close to the query")
    search.add_argument("--between", nargs=2, metavar=("T0", "T1"), help="only what was taken in this span, UTC")
    search.add_argument("--label", metavar="L", help="only images of this label")
    search.add_argument("--gallery", metavar="FILE.png", help="draw the query and its hits")
    search.add_argument("--json", action="store_true", help="print one JSON object")

    evaluate = _group(verbs, "evaluate", "Measure how well a catalog's hashes retrieve.")
    window = verb(
        evaluate,
        "solar",
        _evaluate_solar,
        "Precision and recall when frames close in time count as similar (the Sun turns slowly). "
        "Each image is a query in turn and never counts itself; as many are retrieved as there are similar ones.",
        "evaluate solar sun.catalog --exclude-within 6h --by cadence --plot evaluation.png --queries queries.csv",
        threads,
    )
    window.add_argument("catalog", metavar="CATALOG")
    window.add_argument("--window", default="48h", metavar="48h", help="full width: 48h is 24 h either side (default)")
    window.add_argument("--exclude-within", default="0h", metavar="0h", help="take out what is this close to the query")
    _add_metric(window)
    window.add_argument(
        "--by",
        action="append",
        choices=("cadence", "window"),
        default=[],
        help="also a table for thinner series (up to 12 h between frames), or for windows from 6 h to 96 h",
    )
    window.add_argument("--queries", metavar="FILE.csv", help="write the counts of each query, and its precision")
    window.add_argument(
        "--plot",
        metavar="FILE.png",
        help="draw precision against the number retrieved and the window, and distance against time",
    )
    window.add_argument("--json", action="store_true", help="print one JSON object")

    regions = verb(
        verbs,
        "regions",
        _regions,
        "Find the magnetic regions of a full-disk magnetogram. "
        "Latitude and longitude (west positive) are Stonyhurst, in degrees; areas are of the solar surface, in "
        "millionths of the hemisphere (MSH); fluxes are of the radial field, without and with sign. Strongest first.",
        "regions frame.fits --picture regions.png",
        reading,
    )
    regions.add_argument("file", metavar="FILE", help="a FITS magnetogram in gauss whose header tells the disk")
    regions.add_argument("--picture", metavar="FILE.png", help="draw the disk with its regions outlined and numbered")
    regions.add_argument("--json", action="store_true", help="print one JSON object")

    classes = verb(
        evaluate,
        "classes",
        _evaluate_classes,
        "Accuracy of classification by the nearest hashes, on blocks of time that were not learnt from. "
        "Each block is tested in turn against the images of all others, but for those too close to it in time.",
        "evaluate classes sun.catalog --labels labels.csv -k 10 --gap 14d",
        threads,
    )
    classes.add_argument("catalog", metavar="CATALOG")
    _add_classifier(classes)
    classes.add_argument("--block", default="28d", metavar="28d", help="length of a block (default: %(default)s)")
    classes.add_argument("--gap", default="14d", metavar="14d", help="learn from what is so far away or more (default)")
    classes.add_argument("--json", action="store_true", help="print one JSON object")

    classify = verb(
        verbs,
        "classify",
        _classify,
        "Tell the class of images from the labels of the most similar ones in a catalog.",
        "classify sun.catalog new-frames --labels labels.csv -k 10",
        threads,
        reading,
    )
    classify.add_argument("catalog", metavar="CATALOG")
    classify.add_argument("inputs", nargs="+", metavar="IMAGE", help=_INPUT)
    _add_classifier(classify)
    classify.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _group(verbs: Any, name: str, text: str) -> Any:
    group = verbs.add_parser(name, help=text[0].lower() + text[1:].rstrip("."), description=text)
    return group.add_subparsers(dest="system", required=True, metavar="SYSTEM", parser_class=_Parser)


def _add_encoder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder", required=True, metavar="NAME_OR_FILE", help="a shipped encoder, or an .onnx file")


def _add_metric(parser: argparse.ArgumentParser) -> None:
    choices = ("l2", "cosine", "hamming")
    parser.add_argument("--metric", choices=choices, default="l2", help="distance; hamming uses codes (default: l2)")


def _add_classifier(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--labels", metavar="FILE.csv", help="table of path and label (default: the catalog's labels)")
    parser.add_argument("-k", type=int, default=10, metavar="K", help="neighbours that vote (default: 10)")
    _add_metric(parser)


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


if __name__ == "__main__":
    sys.exit(main())
