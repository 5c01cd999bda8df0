"""The command profile: where each millisecond of a query goes."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fasthash.cli._common import READING, add_encoder, limits, print_json, verb
from fasthash.errors import ArgumentError, EncoderError, ReadError
from fasthash.io import Limits

T = TypeVar("T")

# Those of a process, then those of each query.
_STEPS = {
    "import": "start Python, import fasthash",
    "load": "load the encoder",
    "open": "open the catalog",
    "read": "read the file's bytes",
    "decode": "look at the header, decode the pixels",
    "describe": "describe the image",
    "encode": "run the network",
    "binarize": "make bits of the hash",
    "search": "find the ten nearest",
}


def add_profile(verbs: Any) -> None:
    parser = verb(
        verbs,
        "profile",
        _profile,
        "Show where each millisecond of a query goes. The first call of each step, with all that it has to load, and "
        "the median of further calls, all on one thread.",
        "profile hmi.m_720s.20140510_120000_TAI.fits --encoder solar --catalog sun.catalog",
        READING,
    )
    parser.add_argument("file", metavar="FILE", help="an image")
    add_encoder(parser)
    parser.add_argument("--catalog", metavar="CATALOG", help="search in it, too")
    parser.add_argument("--repeat", type=int, default=20, metavar="N", help="further calls (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _profile(args: argparse.Namespace) -> None:
    if args.repeat < 1:
        raise ArgumentError(f"--repeat: expected at least 1, got {args.repeat}")
    if not Path(args.file).is_file():
        raise ReadError(f"{args.file}: expected one file")
    started, encoder, catalog = _start(args.encoder, args.catalog)
    first, *further = (_query(args.file, encoder, catalog, limits(args)) for _ in range(args.repeat + 1))
    if catalog is not None:
        catalog.close()
    first_ms = {**started, **first}
    median_ms = {step: float(np.median([query[step] for query in further])) for step in first}
    for of in (first_ms, median_ms):
        of["total"] = sum(of.values())
    if args.json:
        about = {"file": args.file, "encoder": encoder.name, "catalog": args.catalog, "repeat": args.repeat}
        print_json({**about, "first_ms": first_ms, "median_ms": median_ms})
        return
    print(f"{'milliseconds':<38} {'first call':>10} {f'median of {args.repeat}':>14}")
    for step, ms in first_ms.items():
        then = f"{median_ms[step]:.3f}" if step in median_ms else ""
        print(f"{_STEPS.get(step, step):<38} {ms:>10.3f} {then:>14}".rstrip())


def _timed(call: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = call()
    return 1e3 * (time.perf_counter() - start), result


def _nothing(*_: object) -> None:
    pass


def _start(encoder_name: str, catalog_path: str | None) -> tuple[dict[str, float], Any, Any]:
    """What a process does before its first query: milliseconds of each step, the encoder, the catalog or None."""
    import subprocess

    # This process has imported much already; a new one tells what that costs.
    code = f"import sys; sys.path[:] = {sys.path!r}; import fasthash.cli, fasthash.catalog"
    ms = {"import": _timed(lambda: subprocess.run([sys.executable, "-c", code], check=True))[0]}
    from fasthash.catalog import Catalog
    from fasthash.encoder import load_encoder

    ms["load"], encoder = _timed(lambda: load_encoder(encoder_name))
    if catalog_path is None:
        return ms, encoder, None
    ms["open"], catalog = _timed(lambda: Catalog.open(catalog_path))
    if catalog.encoder.fingerprint != encoder.fingerprint:
        raise EncoderError(f"{catalog_path}: made with another encoder than {encoder_name}")
    return ms, encoder, catalog


def _query(path: str, encoder: Any, catalog: Any, limits: Limits) -> dict[str, float]:
    """Milliseconds of each step of one query.

    Most files are decoded, and some even read, while they are described: the steps are told apart by reading and
    decoding once more, for nothing. Their sum is what a query takes.
    """
    from fasthash.io import open_image

    read, _ = _timed(Path(path).read_bytes)
    opened, image = _timed(lambda: open_image(path, limits))
    decoded, _ = _timed(lambda: image.fold_bands(_nothing, _nothing))
    described, row = _timed(lambda: encoder.front_end.describe(image))
    ms = {"read": min(read, opened + decoded)}
    ms["decode"] = opened + decoded - ms["read"]
    ms["describe"] = max(0.0, described - decoded)
    ms["encode"], hashes = _timed(lambda: encoder.encode_inputs(row[np.newaxis]))
    ms["binarize"], _ = _timed(lambda: encoder.binarize(hashes))
    if catalog is not None:
        ms["search"], _ = _timed(lambda: catalog.search(hashes[0]))
    return ms
