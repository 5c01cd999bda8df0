"""Representations side by side: what each costs and how well it retrieves, all on the same images.

What a system compares, and how a ranking is judged, `fasthash.solar.reproduce` and `fasthash.radio.reproduce` say. A
descriptor turns one image into numbers, and may serve several methods; a method is fitted to the descriptors of the
archive and turns each into a hash or a code.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._storage import atomic_write
from fasthash._validation import as_codes, as_vectors
from fasthash.encoder import Encoder
from fasthash.errors import FastHashError
from fasthash.io import Image

Describe = Callable[[Image], NDArray[np.float32]]
Hash = Callable[[NDArray[np.float32]], NDArray[Any]]
Judge = Callable[[NDArray[Any], str], dict[str, Any]]

_TIMED = 50  # hashes timed one by one
_BATCH = 256


@dataclass(frozen=True)
class Published:
    """A figure from the literature, on data of its own: a score, and whose it is."""

    score: float
    source: str


@dataclass(frozen=True)
class Method:
    """One representation to compare.

    ``descriptor``: the name of what it is made from. ``fit``: from the archive's descriptors (n, ...) to a function
    from any of them to hashes, float32 (n, d), or where ``n_bits`` is given to codes, uint8 (n, n_bytes). A
    FastHashError from it says why the method has to be left out.
    """

    name: str
    descriptor: str
    fit: Callable[[NDArray[np.float32]], Hash]
    n_bits: int | None = None
    metric: str = "l2"
    published: Published | None = None


def hashes_of(encoder: Encoder, published: Published | None = None) -> Method:
    """The hashes of an encoder, of the descriptor that has its name; its network runs on one thread."""
    return Method(encoder.name, encoder.name, lambda _: encoder.encode_inputs, published=published)


def codes_of(encoder: Encoder) -> Method:
    """The codes of an encoder, of the descriptor that has its name."""

    def fit(_: NDArray[np.float32]) -> Hash:
        return lambda rows: encoder.binarize(encoder.encode_inputs(rows))

    return Method(f"{encoder.name}, code", encoder.name, fit, encoder.n_bits)


@dataclass(frozen=True, eq=False)
class Described:
    """Descriptors of the images that all of them can take.

    images : those images, without their pixels.
    rows : by descriptor, float32 (n, ...).
    seconds : by descriptor, of one image: the median of this thread's CPU time.
    unusable : descriptors that can take no image, and why.
    problems : a line for each image left out.
    """

    images: list[Image]
    rows: dict[str, NDArray[np.float32]]
    seconds: dict[str, float]
    unusable: dict[str, str]
    problems: list[str]


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table. ``seconds``: of one image, from its pixels. ``skipped``: why it has no scores."""

    method: Method
    size: int = 0
    seconds: float = 0.0
    scores: Mapping[str, Any] = field(default_factory=dict)
    skipped: str = ""

    @property
    def size_text(self) -> str:
        return f"{self.size} {'floats' if self.method.n_bits is None else 'bits'}"

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        published = self.method.published
        about: dict[str, Any] = {"representation": self.method.name}
        if self.skipped:
            return about | {"skipped": self.skipped}
        about |= {"floats" if self.method.n_bits is None else "bits": self.size, "metric": _metric(self.method)}
        about |= {"microseconds": round(1e6 * self.seconds, 1), **self.scores}
        return about | {"published": None if published is None else vars(published)}


def describe_all(
    descriptors: Mapping[str, Describe], images: Iterable[Image | str], progress: Callable[[int], None]
) -> Described:
    """Describe images one by one; a line of text in place of an image says why it could not be read.

    Raises FastHashError where no image is left.
    """
    kept, found, problems = [], [], []
    spent: dict[str, list[float]] = {name: [] for name in descriptors}
    for done, image in enumerate(images, start=1):
        if isinstance(image, str):
            problems.append(image)
            continue
        found.append({name: _describe(describe, image, spent[name]) for name, describe in descriptors.items()})
        kept.append(replace(image, source=np.empty((0, 0), np.float32)))
        progress(done)
    if not kept:
        raise FastHashError(problems[-1] if problems else "no image to compare by")
    failed = {name: [each[name] for each in found if isinstance(each[name], str)] for name in descriptors}
    unusable = {name: str(lines[0]) for name, lines in failed.items() if len(lines) == len(found)}
    used = [name for name in descriptors if name not in unusable]
    good = [i for i, each in enumerate(found) if not any(isinstance(each[name], str) for name in used)]
    if not used or not good:
        raise FastHashError(next(str(lines[0]) for lines in failed.values() if lines))
    for each in found:
        problems += [each[name] for name in used if isinstance(each[name], str)][:1]
    rows = {name: np.stack([found[i][name] for i in good]) for name in used}
    seconds = {name: float(np.median(spent[name])) for name in used}
    return Described([kept[i] for i in good], rows, seconds, unusable, problems)


def _describe(describe: Describe, image: Image, spent: list[float]) -> Any:
    """The descriptor of an image, or in one line why there is none."""
    start = time.thread_time()
    try:
        row = describe(image)
    except FastHashError as error:
        return str(error)
    spent.append(time.thread_time() - start)
    return row


def compare(
    methods: Sequence[Method], described: Described, archive: Any, judge: Judge, progress: Callable[[int, int], None]
) -> list[Row]:
    """Fit every method to the ``archive`` (an index into the rows), hash all rows and judge the hashes."""
    table = []
    for done, method in enumerate(methods, start=1):
        table.append(_row(method, described, archive, judge))
        progress(done, len(methods))
    return table


def _row(method: Method, described: Described, archive: Any, judge: Judge) -> Row:
    if method.descriptor in described.unusable:
        return Row(method, skipped=described.unusable[method.descriptor])
    rows = described.rows[method.descriptor]
    try:
        to_hash = method.fit(rows[archive])
    except FastHashError as error:
        return Row(method, skipped=str(error))
    hashes = np.concatenate([to_hash(rows[i : i + _BATCH]) for i in range(0, len(rows), _BATCH)])
    check: Callable[[str, Any], NDArray[Any]] = as_vectors if method.n_bits is None else as_codes
    spent = []
    for i in range(min(_TIMED, len(rows))):
        start = time.thread_time()
        to_hash(rows[i : i + 1])
        spent.append(time.thread_time() - start)
    seconds = described.seconds[method.descriptor] + float(np.median(spent))
    scores = judge(check(method.name, hashes), _metric(method))
    return Row(method, hashes.shape[1] if method.n_bits is None else method.n_bits, seconds, scores)


def _metric(method: Method) -> str:
    return method.metric if method.n_bits is None else "hamming"


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """The report as JSON."""
    with atomic_write(path) as file:
        file.write(json.dumps(report, indent=2).encode() + b"\n")
