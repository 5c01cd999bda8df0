"""What the commands share: how they speak, what they take for input, how their arguments are declared."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fasthash.errors import FastHashError
from fasthash.io import DEFAULT_LIMITS, Limits

INPUT = "files, folders (searched recursively), globs and zips of FITS, JPEG, PNG, JPEG 2000 or .npy images"


def say(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """One line, whatever is in a file's name: line breaks, escapes and bytes that are no text are spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_json(value: Any) -> None:
    print(json.dumps(value, allow_nan=False))


def warn(lines: Iterable[str]) -> None:
    for line in lines:
        say(f"warning: {line}")


# ---- input and output ----------------------------------------------------------------------------------------------


def limits(args: argparse.Namespace) -> Limits:
    return Limits(max_pixels=args.max_pixels, max_bytes=max(8 * args.max_pixels + 2**24, DEFAULT_LIMITS.max_bytes))


def find(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    from fasthash.io import find_images

    return find_images(args.inputs)


def check_writable(option: str, path: str, *suffixes: str) -> None:
    """Refuse a file that could not be written before the long work begins, not after it."""
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        raise FastHashError(f"{option} {path}: expected a name ending in {' or '.join(suffixes)}")
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise FastHashError(f"{option} {path}: {'it is a folder' if target.is_dir() else 'its folder does not exist'}")


def report_skipped(problems: Sequence[str], done: int) -> None:
    """Name what could not be used; where nothing could, that is an error."""
    if done:
        for line in problems:
            say(f"skipped: {line}")
        return
    for line in problems[:-1]:
        say(f"skipped: {line}")
    if len(problems) > 1:
        raise FastHashError(f"nothing could be done with any of {len(problems)} inputs, the last being {problems[-1]}")
    raise FastHashError(problems[-1] if problems else "no input")


# ---- arguments -----------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2, f"error: {message} (fasthash {self.prog.partition(' ')[2]} --help)\n".replace("  ", " "))


def _pixel_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) < 2**48:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 2^48, got {text!r}")
    return int(text)


COMMON = argparse.ArgumentParser(add_help=False)
# No default here: that of a command would undo a --debug before the command.
COMMON.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")


def add_threads(parser: Any) -> None:
    parser.add_argument("--threads", type=int, default=-1, metavar="N", help="threads; -1: one a core (default)")


THREADS = argparse.ArgumentParser(add_help=False)
add_threads(THREADS)
READING = argparse.ArgumentParser(add_help=False)
READING.add_argument(
    "--max-pixels",
    type=_pixel_count,
    default=DEFAULT_LIMITS.max_pixels,
    metavar="N",
    help="refuse images of more pixels, before any is decoded (default: %(default)s)",
)


def verb(
    parent: Any, name: str, run: Callable[[argparse.Namespace], None], text: str, example: str, *parents: Any
) -> argparse.ArgumentParser:
    """Add a command to ``parent``: its help is ``text``, whose first sentence stands in the list of commands."""
    made: argparse.ArgumentParser = parent.add_parser(
        name,
        help=text[0].lower() + text[1:].partition(". ")[0].rstrip("."),
        description=text,
        epilog=f"example:\n  fasthash {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[COMMON, *parents],
    )
    made.set_defaults(run=run)
    return made


def group(verbs: Any, name: str, text: str) -> Any:
    """Add a command that has commands of its own, one a system."""
    made = verbs.add_parser(name, help=text[0].lower() + text[1:].rstrip("."), description=text)
    return made.add_subparsers(dest="system", required=True, metavar="SYSTEM", parser_class=Parser)


def add_encoder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder", required=True, metavar="NAME_OR_FILE", help="a shipped encoder, or an .onnx file")


def add_metric(parser: argparse.ArgumentParser) -> None:
    choices = ("l2", "cosine", "hamming")
    parser.add_argument("--metric", choices=choices, default="l2", help="distance; hamming uses codes (default: l2)")
