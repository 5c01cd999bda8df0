"""Commands of a folder that is followed: watch, quarantine."""

import argparse
import contextlib
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fasthash.cli._common import READING, THREADS, add_metric, limits, print_json, printable, say, verb
from fasthash.errors import FastHashError
from fasthash.times import parse_span


def add_watch(verbs: Any) -> None:
    parser = verb(
        verbs,
        "watch",
        _watch,
        "Follow a folder into a catalog. Each image that comes is added once it is whole, durably, and with --answer "
        "its nearest neighbours are printed. Files that cannot be used are put in quarantine: listed, with the reason, "
        "by `fasthash quarantine`, and left where they are. SIGTERM or Ctrl-C ends it, SIGUSR1 shows how it stands; "
        "started again, it goes on where it was.",
        "watch incoming sun.catalog --answer 5 --exclude-within 12h >> answers.jsonl",
        THREADS,
        READING,
    )
    parser.add_argument("folder", metavar="DIR", help="folder to follow, with all folders in it")
    parser.add_argument("catalog", metavar="CATALOG")
    parser.add_argument("--encoder", metavar="NAME_OR_FILE", help="make the catalog with it, where there is none yet")
    parser.add_argument(
        "--answer", type=int, default=0, metavar="K", help="print the K nearest of each image, one JSON object a line"
    )
    add_metric(parser)
    parser.add_argument("--exclude-within", metavar="12h", help="leave out what was taken this close to the image")
    parser.add_argument(
        "--deadline",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="give up an image whose decoding takes longer (default: %(default)g)",
    )
    parser.add_argument(
        "--poll",
        type=_seconds,
        default=2.0,
        metavar="SECONDS",
        help="look at the folder this often, for what the system does not tell of (network file systems); a file found "
        "so must have stood still as long (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print the metrics at the end as one JSON object")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.01 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"expected 0.01 to 86400 seconds, got {text}")
    return value


def _watch(args: argparse.Namespace) -> None:
    from fasthash.catalog import Catalog, is_free
    from fasthash.watch import Settings, Watch

    if args.answer < 0:
        raise FastHashError(f"--answer: expected at least 0, got {args.answer}")
    if args.exclude_within:
        parse_span("--exclude-within", args.exclude_within)
    if not Path(args.folder).is_dir():
        raise FastHashError(f"{args.folder}: no such folder")
    if args.encoder and is_free(args.catalog):
        Catalog.create(args.catalog, args.encoder).close()
    settings = Settings(
        args.catalog,
        args.deadline,
        args.threads,
        limits(args),
        args.answer,
        args.metric,
        args.exclude_within or "",
    )
    watch = Watch(args.folder, settings, args.poll, _print_answer, say)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: watch.stop())
    signal.signal(signal.SIGUSR1, lambda *_: say(str(watch.metrics())))
    say(f"watching {args.folder}, adding to {args.catalog}")
    watch.run()
    metrics = watch.metrics()
    say(str(metrics))
    if args.json:
        print_json(asdict(metrics))


def _print_answer(answer: dict[str, Any]) -> None:
    print_json(answer)
    sys.stdout.flush()


def add_quarantine(verbs: Any) -> None:
    parser = verb(
        verbs,
        "quarantine",
        _quarantine,
        "List the files that `fasthash watch` could not use, with the reasons. They are where they were; a file that "
        "changes is tried again by itself, the others with --release.",
        "quarantine sun.catalog --release",
    )
    parser.add_argument("catalog", metavar="CATALOG")
    parser.add_argument("--release", action="store_true", help="forget them: the next look at the folder tries them")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _quarantine(args: argparse.Namespace) -> None:
    from fasthash.catalog import Catalog
    from fasthash.watch import LEDGER, Ledger

    Catalog.open(args.catalog).close()  # names what is no catalog
    files: list[tuple[str, str]] = []
    released = 0
    if (Path(args.catalog) / LEDGER).exists():  # else it was never watched, and to look makes no ledger
        with contextlib.closing(Ledger(args.catalog)) as ledger:
            files = ledger.quarantine()
            released = ledger.release() if args.release else 0
    if args.release:
        say(f"{released} files released")
    elif not files:
        say("nothing is in quarantine")
    if args.json:
        print_json({"catalog": args.catalog, "files": [{"path": path, "reason": reason} for path, reason in files]})
        return
    for _, reason in files:
        print(printable(reason))
