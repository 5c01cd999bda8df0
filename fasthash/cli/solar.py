"""Commands that only the Sun needs: simulate, fetch solar, train solar, regions."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fasthash._progress import Progress
from fasthash.cli._common import (
    INPUT,
    READING,
    THREADS,
    check_writable,
    limits,
    print_json,
    printable,
    report_skipped,
    say,
    verb,
    warn,
)
from fasthash.errors import FastHashError


def add_simulate(verbs: Any) -> None:
    parser = verb(
        verbs,
        "simulate",
        _simulate,
        "Simulate full-disk magnetograms as FITS files that SunPy opens as HMI maps.",
        "simulate frames --start 2014-01-01 --days 10 --cadence 120 --size 256 --seed 1",
    )
    parser.add_argument("out", metavar="OUT", help="folder for the files")
    parser.add_argument("--start", required=True, metavar="ISO", help="first frame, UTC: 2014-01-01T00:00")
    parser.add_argument("--days", required=True, type=float, metavar="N", help="length of the series")
    parser.add_argument("--cadence", required=True, type=float, metavar="MIN", help="minutes between frames")
    parser.add_argument("--size", required=True, type=int, metavar="PX", help="pixels a side")
    parser.add_argument(
        "--active-regions", metavar="FILE", help="table of real active regions (default: drawn at random)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the random field (default: %(default)s)")
    parser.add_argument(
        "--rotation", type=float, default=0.0, metavar="DEG", help="CROTA2; HMI delivers 180 (default: 0, north up)"
    )
    parser.add_argument(
        "--missing", type=float, default=0.0, metavar="SHARE", help="of each disk, lost in blocks of NaN (default: 0)"
    )


def _simulate(args: argparse.Namespace) -> None:
    from fasthash.solar.simulator import simulate

    series = args.out, args.start, args.days, args.cadence, args.size, args.active_regions, args.seed
    files = simulate(*series, Progress("simulated"), args.rotation, args.missing)
    print(f"{len(files)} simulated magnetograms in {args.out}")


def add_fetch(verbs: Any) -> None:
    parser = verb(
        verbs,
        "solar",
        _fetch_solar,
        "Get magnetograms of SDO/HMI from JSOC, by SunPy (needs fasthash[solar] and the network). "
        "Register your e-mail address there first: http://jsoc.stanford.edu/ajax/register_email.html . "
        "Run it again after any interruption: it goes on. A frame of 4096 x 4096 pixels has about 14 MB.",
        "fetch solar frames --start 2014-05-01 --end 2014-06-01 --cadence 1h --email you@example.org",
    )
    parser.add_argument("out", metavar="OUT", help="folder for the files, one a frame, named by T_REC")
    parser.add_argument("--start", required=True, metavar="ISO", help="first frame, UTC: 2014-05-01T00:00")
    parser.add_argument("--end", required=True, metavar="ISO", help="no frame from here on, UTC")
    parser.add_argument("--cadence", required=True, metavar="1h", help="time between frames: 12min, 1h, 1d")
    parser.add_argument("--email", required=True, metavar="ADDRESS", help="your address, as registered at JSOC")
    parser.add_argument(
        "--series",
        default="hmi.M_720s",
        metavar="NAME",
        help="hmi.M_720s: every 12 min, averaged (default); hmi.M_45s: every 45 s, noisier",
    )


def _fetch_solar(args: argparse.Namespace) -> None:
    from fasthash.solar.fetch import fetch

    def clear() -> None:
        if sys.stderr.isatty():  # on a terminal the line of progress may still be open
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def tell(line: str) -> None:
        clear()
        say(line)

    report = fetch(args.out, args.start, args.end, args.cadence, args.email, args.series, Progress("fetched"), tell)
    for why in dict.fromkeys(report.unusable.values()):
        tell(f"left out, {why}: {_some([t_rec for t_rec, reason in report.unusable.items() if reason == why])}")
    if report.poor:
        tell(f"fetched, but HMI calls the quality poor: {_some(report.poor)}")
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


def add_train(verbs: Any) -> None:
    parser = verb(
        verbs,
        "solar",
        _train_solar,
        "Train a solar encoder on magnetograms and write it as ONNX.",
        "train solar frames -o my-sun.onnx --preset paper --epochs 40 --seed 1",
        THREADS,
        READING,
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help=f"{INPUT}; for best also folders of simulated worlds"
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE.onnx", help="the encoder to write")
    parser.add_argument("--preset", default="paper", metavar="NAME", help="recipe: paper (default), or best")
    parser.add_argument("--epochs", type=int, default=40, metavar="N", help="passes over the frames (default: 40)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of weights and order (default: 0)")
    parser.add_argument("--data", metavar="TEXT", help="what the images are, for the metadata (default: their names)")


def _train_solar(args: argparse.Namespace) -> None:
    from fasthash._training import check_installed
    from fasthash._validation import check_choice

    check_choice("--preset", args.preset, ("paper", "best"))
    check_installed()
    check_writable("-o", args.output, ".onnx")
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
        warn(f"{image.path}: left out, since its time is unknown" for image, _ in found if np.isnat(image.time))
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
    for done, item in enumerate(describe_files(front_end, paths, args.threads, limits(args)), start=1):
        progress(done, len(paths))
        if isinstance(item, Failure):
            problems.append(item.message)
        else:
            described.append(item)
    report_skipped(problems, done=len(described))
    return described


def _data(args: argparse.Namespace) -> str:
    return args.data or ", ".join(Path(item).name for item in args.inputs)


def add_regions(verbs: Any) -> None:
    parser = verb(
        verbs,
        "regions",
        _regions,
        "Find the magnetic regions of a full-disk magnetogram. "
        "Latitude and longitude (west positive) are Stonyhurst, in degrees; areas are of the solar surface, in "
        "millionths of the hemisphere (MSH); fluxes are of the radial field, without and with sign. Strongest first.",
        "regions frame.fits --picture regions.png",
        READING,
    )
    parser.add_argument("image", metavar="IMAGE", help="a FITS magnetogram in gauss whose header tells the disk")
    parser.add_argument("--picture", metavar="FILE.png", help="draw the disk with its regions outlined and numbered")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _regions(args: argparse.Namespace) -> None:
    from fasthash.io import read_image
    from fasthash.plots import SUFFIXES
    from fasthash.solar.regions import draw_regions, find_regions

    if args.picture:
        check_writable("--picture", args.picture, *SUFFIXES)
    table = find_regions(read_image(args.image, limits(args)))
    if args.picture:
        draw_regions(table, args.picture)
    if args.json:
        print_json(table.to_dict())
    elif not table:
        print(f"{printable(args.image)}: no magnetic regions")
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
