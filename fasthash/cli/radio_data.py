"""Commands that bring radio galaxies: simulate-radio, fetch radio."""

import argparse
from typing import Any

from fasthash._progress import Progress
from fasthash.cli._common import say, verb


def add_simulate(verbs: Any) -> None:
    parser = verb(
        verbs,
        "simulate-radio",
        _simulate,
        "Simulate radio galaxies of four classes as pictures in folders, OUT/train/FRI/... , valid and test. "
        "They look like the published cut-outs of FIRST: 1.8 arcseconds a pixel, noise cut, the peak white.",
        "simulate-radio galaxies --count 1000 --seed 1",
    )
    parser.add_argument("out", metavar="OUT", help="folder for the files")
    parser.add_argument("--count", required=True, type=int, metavar="N", help="images, the four classes in turn")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of everything random (default: %(default)s)")
    parser.add_argument("--size", type=int, default=150, metavar="PX", help="pixels a side (default: %(default)s)")


def _simulate(args: argparse.Namespace) -> None:
    from fasthash.radio.simulator import write_galaxies

    files = write_galaxies(args.out, args.count, args.seed, args.size, Progress("simulated"))
    print(f"{len(files)} simulated radio galaxies in {args.out}")


def add_fetch(verbs: Any) -> None:
    parser = verb(
        verbs,
        "radio",
        _fetch,
        "Get the published set of radio galaxies of Samudre et al. 2022 (FRI, FRII, Bent, Compact; a zip of a few MB). "
        "Its content is checked against what is pinned in fasthash. Run it again after an interruption: it goes on.",
        "fetch radio sets",
    )
    parser.add_argument("out", metavar="OUT", help="folder for the zip")
    parser.add_argument(
        "--set",
        choices=("data", "data-balanced"),
        default="data",
        help="the images as they are (default), or filled up with copies until the classes are equal",
    )
    parser.add_argument("--url", metavar="URL", help="a mirror, or file:///... ; the content must be the same")


def _fetch(args: argparse.Namespace) -> None:
    from fasthash.radio.fetch import fetch

    fetched = fetch(args.out, args.set, args.url, Progress("fetched bytes"))
    if fetched.present:
        say(f"{fetched.path} was there already")
    print(f"{fetched.path}: {', '.join(f'{count} {split}' for split, count in fetched.counts.items())} images")
