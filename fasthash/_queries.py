"""What a search of a catalog is asked, and which images it may answer with."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._neighbours import Hits, Selection, within
from fasthash._table import NO_TIME, Table
from fasthash._validation import check_int
from fasthash.encoder import Encoded
from fasthash.errors import ArgumentError
from fasthash.times import parse_time

Ints = NDArray[np.int64]
Nearest = Callable[[Selection, slice, int], list[Hits]]  # of some of the queries the k nearest of the selected rows
NONE = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Query:
    hash: NDArray[np.float32]  # (dim,)
    time: int
    cells: NDArray[np.uint8] | None
    name: str


def is_hashed(image: Any) -> bool:
    """Whether an image comes as a hash, alone or encoded, or as an id: there is nothing to read or to run for it."""
    return isinstance(image, (int, np.integer, Encoded)) or (isinstance(image, np.ndarray) and image.ndim == 1)


def but_around(table: Table, rows: Ints | None, query: Query, around: int | None) -> Selection:
    """The rows that are allowed but those taken within so many milliseconds of the query."""
    if around is None:
        return Selection(rows, NONE)
    if query.time == NO_TIME:
        raise ArgumentError(f"exclude_within: the query {query.name} has no known time")
    without = table.taken_between(query.time - around, query.time + around)
    return Selection(None, without) if rows is None else Selection(rows[~within(without, rows)], NONE)


def thinned(table: Table, search: Callable[[int], list[Hits]], k: int, gap: int) -> Hits:
    """The k nearest that are at least ``gap`` milliseconds apart: more and more are asked for until there are k."""
    wanted = 4 * k
    while True:
        distances, rows = search(wanted)[0]
        kept = _apart(table["times"][rows], k, gap)
        if len(kept) == k or len(rows) < wanted:
            return distances[kept], rows[kept]
        wanted *= 4


def _apart(times: Ints, k: int, gap: int) -> list[int]:
    """The first k places of which none is closer than ``gap`` to one before; those without a time are close to none."""
    kept: list[int] = []
    free = np.ones(len(times), np.bool_)
    while len(kept) < k and free.any():
        first = int(free.argmax())
        kept.append(first)
        free[first] = False
        if times[first] != NO_TIME:
            free &= (times == NO_TIME) | (np.abs(times - times[first]) >= gap)
    return kept


def find(table: Table, images: Any) -> Ints:
    """The rows of ids and paths, none twice; raises ArgumentError for one that is not there."""
    single = not isinstance(images, Iterable) or isinstance(images, (str, bytes, os.PathLike))
    wanted: list[Any] = [images] if single else list(images)
    for each in wanted:
        if not isinstance(each, (int, np.integer, str, bytes, os.PathLike)):
            raise ArgumentError(f"image: expected an id or a path, got {each!r}")
    by_path: dict[str, list[int]] = {}
    if not all(isinstance(each, (int, np.integer)) for each in wanted):
        for row in table.live().tolist():
            by_path.setdefault(table.path(row), []).append(row)
    rows: list[int] = []
    for each in wanted:
        if isinstance(each, (int, np.integer)):
            number = check_int("image", each, 0, 2**63 - 1)
            found = [row for row in table.rows_of(np.array([number])).tolist() if row >= 0]
        else:
            found = by_path.get(os.fsdecode(each), [])
        if not found:
            raise ArgumentError(f"image: {each} is not in this catalog")
        rows.extend(found)
    return np.array(list(dict.fromkeys(rows)), np.int64)


def as_interval(between: Any) -> tuple[int, int]:
    if not isinstance(between, (tuple, list)) or len(between) != 2:
        raise ArgumentError(f"between: expected two times, got {between!r}")
    return milliseconds(parse_time("between", between[0])), milliseconds(parse_time("between", between[1]))


def milliseconds(time: np.datetime64) -> int:
    """Since 1970; NO_TIME for NaT."""
    return int(time.astype("datetime64[ms]").astype(np.int64))
