"""The command line: one command a verb, no numerics.

Results go to stdout, progress and messages to stderr. Exit status: 0 done; 1 failed, with one line ``error: ...``;
2 wrong usage. A module holds the commands of one subject, each with its arguments before it.
"""

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fasthash._version import __version__
from fasthash.cli import archive, classify, evaluate, exchange, profile, radio, reproduce, solar, watch
from fasthash.cli._common import COMMON, Parser, group, print_json, say, verb
from fasthash.errors import FastHashError


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
        _check_threads(args)
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone; point stdout elsewhere, or its flush at exit fails again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        say("error: interrupted")
        return 130
    except Exception as error:
        if args.debug:
            raise
        say(f"error: {_describe(error)}")
        return 1
    return 0


def _check_threads(args: argparse.Namespace) -> None:
    """Here, for all commands, so that the error names the option."""
    if getattr(args, "threads", -1) != -1:
        from fasthash._validation import check_int

        check_int("--threads", args.threads, 1)


def _describe(error: Exception) -> str:
    if isinstance(error, FastHashError):
        return str(error)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no details'} (--debug shows where)"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fasthash",
        description="Find, in milliseconds and on a CPU, the images of an archive that are most like a given one.",
        epilog="Start with `fasthash demo`; `fasthash COMMAND --help` explains a command, with an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[COMMON],
    )
    parser.add_argument("--version", action="version", version=f"fasthash {__version__}")
    verbs = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    _add_demo(verbs)
    solar.add_simulate(verbs)
    radio.add_simulate(verbs)
    fetching = group(verbs, "fetch", "Get real images from their archives.")
    solar.add_fetch(fetching)
    radio.add_fetch(fetching)
    _add_info(verbs)
    profile.add_profile(verbs)
    training = group(verbs, "train", "Train an encoder (needs fasthash[train]).")
    solar.add_train(training)
    radio.add_train(training)
    archive.add_encode(verbs)
    archive.add_build(verbs)
    archive.add_add(verbs)
    archive.add_search(verbs)
    archive.add_relabel(verbs)
    archive.add_delete(verbs)
    archive.add_compact(verbs)
    archive.add_verify(verbs)
    exchange.add_export(verbs)
    exchange.add_import(verbs)
    watch.add_watch(verbs)
    watch.add_quarantine(verbs)
    evaluation = group(verbs, "evaluate", "Measure how well hashes retrieve.")
    evaluate.add_solar(evaluation)
    radio.add_evaluation(evaluation)
    classify.add_evaluation(evaluation)
    comparing = group(verbs, "reproduce", "Compare the papers' baselines and our encoders on the same images.")
    reproduce.add_solar(comparing)
    reproduce.add_radio(comparing)
    classify.add_classify(verbs)
    solar.add_regions(verbs)
    return parser


def _add_demo(verbs: Any) -> None:
    parser = verb(
        verbs,
        "demo",
        _demo,
        "Simulate a Sun and radio galaxies, encode, index, search, evaluate and draw them.",
        "demo --out fasthash-demo",
    )
    parser.add_argument(
        "--out", default="fasthash-demo", metavar="DIR", help="folder for files and pictures (%(default)s)"
    )


def _demo(args: argparse.Namespace) -> None:
    from fasthash.demo import run_demo

    print(run_demo(Path(args.out)))


def _add_info(verbs: Any) -> None:
    parser = verb(verbs, "info", _info, "Show versions, instruction set, threads and encoders.", "info --json")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


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
        print_json({"versions": versions, **facts})
        return
    print(f"fasthash {__version__} on {machine}, {level}, {threads} threads")
    for name, about in encoders.items():
        print(f"encoder {name}: {about['dim']} floats, {about['n_bits']} bits, {about['fingerprint'][:12]}")
    print(", ".join(f"{package} {number}" for package, number in versions.items() if package != "fasthash"))
    missing = [package for package in packages if package not in versions]
    if missing:
        print(f"not installed: {', '.join(missing)}")
