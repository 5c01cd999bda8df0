"""Tables over the codes of an index: which there are, how they are built, grow and are kept in files.

A segment is a run of neighbouring rows with tables of its own, as csrc/multi_index.h describes them. Segments never
change: as codes are added, small ones at the end give way to a larger one (the logarithmic method of Bentley and Saxe,
"Decomposable searching problems", 1980).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._multi_index import MAX_KEY_BITS, MAX_TABLES, PADDING, WORD, build
from fasthash._parallel import map_jobs
from fasthash._validation import available_cores, check_int
from fasthash.errors import ArgumentError

BUCKET_BITS = 16  # up to so many bits a code is its own key
TAIL = 8192  # up to so many codes a scan costs no more than a few keys in another segment would

_MERGED = 3  # a segment grows when what comes after it has a third of its rows: there are few, and few are built anew
_MAX_ROWS = 1 << 31  # of a segment

Codes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The rows of a segment, sorted by bits ``first_bit`` to ``first_bit + key_bits - 1``, as csrc/multi_index.h says.

    offsets: uint32 (2^key_bits + 1,); rows: uint32 (count,), at least one; words: uint8 (count * width + PADDING,),
    the bytes from ``word_at`` on of each row's code, or None.
    """

    first_bit: int
    key_bits: int
    word_at: int
    offsets: NDArray[np.uint32]
    rows: NDArray[np.uint32]
    words: Codes | None

    @property
    def nbytes(self) -> int:
        return self.offsets.nbytes + self.rows.nbytes + (0 if self.words is None else self.words.nbytes)


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Tables over the rows ``first`` to ``first + count - 1``."""

    first: int
    count: int
    tables: tuple[Table, ...]

    @property
    def stop(self) -> int:
        return self.first + self.count


@dataclass(frozen=True, slots=True)
class Layout:
    """Which tables the codes of an index get: all that is the same for each of its segments."""

    n_bits: int
    compact: bool

    def of(self, count: int) -> list[tuple[int, int, int, int]]:
        """For a segment of so many codes: first_bit, key_bits, word_at, width of a word (0: none) of each table."""
        n_bytes = -(-self.n_bits // 8)
        key_bits = max(1, min(count.bit_length() - 3, MAX_KEY_BITS))  # then offsets take at most a byte a code
        if self.n_bits <= BUCKET_BITS:
            return [(0, self.n_bits, 0, 0)]
        width = 0 if self.compact else min(WORD, n_bytes)
        room = (2 if self.compact else 5) * n_bytes - n_bytes / 8  # an index leaves an eighth for codes to come
        n_tables = max(1, min(int(room / (4 + 1 + width)), round(self.n_bits / key_bits), MAX_TABLES))
        key_bits = min(key_bits, self.n_bits // n_tables)
        if key_bits == self.n_bits:
            return [(0, key_bits, 0, 0)]
        starts = [self.n_bits * j // n_tables for j in range(n_tables)]
        return [(start, key_bits, _word_at(start, key_bits, width, n_bytes), width) for start in starts]


def _word_at(first_bit: int, key_bits: int, width: int, n_bytes: int) -> int:
    """The byte where a table's words begin: beyond the key if they fit there, before it if not, else anywhere.

    What a key has in common with a query's is known; words tell most where they hold other bits.
    """
    after, before = -(-(first_bit + key_bits) // 8), first_bit // 8 - width
    if after + width <= n_bytes:
        return after
    return before if before >= 0 else n_bytes - width


def covered(layout: Layout, codes: Codes, segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """Segments over all codes but a short tail. Of those there are, all stay but small ones at the end, which merge."""
    start, stop = segments[-1].stop if segments else 0, len(codes)
    if stop - start < TAIL:
        return segments
    while segments and segments[-1].count < _MERGED * (stop - start) and stop - segments[-1].first <= _MAX_ROWS:
        start, segments = segments[-1].first, segments[:-1]
    parts = (codes[first : first + _MAX_ROWS] for first in range(start, stop, _MAX_ROWS))
    for part in parts:
        segments = (*segments, Segment(start, len(part), _tables(layout.of(len(part)), part)))
        start += len(part)
    return segments


def _tables(layout: list[tuple[int, int, int, int]], codes: Codes) -> tuple[Table, ...]:
    def built(wanted: tuple[int, int, int, int]) -> Table:
        first_bit, key_bits, word_at, width = wanted
        words = np.empty(len(codes) * width + PADDING, np.uint8) if width else None
        offsets, rows = np.empty((1 << key_bits) + 1, np.uint32), np.empty(len(codes), np.uint32)
        table = Table(first_bit, key_bits, word_at, offsets, rows, words)
        build(table, codes)
        return table

    return tuple(map_jobs(built, layout, available_cores() if len(codes) > TAIL else 1))


def for_file(segments: tuple[Segment, ...]) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
    """What a file says of the segments, in its header and as arrays; `from_file` takes it back."""
    described: list[dict[str, Any]] = []
    arrays: dict[str, NDArray[Any]] = {}
    for i, segment in enumerate(segments):
        tables = []
        for j, table in enumerate(segment.tables):
            tables.append({name: getattr(table, name) for name in ("first_bit", "key_bits", "word_at")})
            parts = {"offsets": table.offsets, "rows": table.rows, "words": table.words}
            arrays |= {f"{name} {i} {j}": part for name, part in parts.items() if part is not None}
        described.append({"count": segment.count, "tables": tables})
    return described, arrays


def checked_array(name: str, array: NDArray[Any], dtype: Any, n: int) -> NDArray[Any]:
    if array.dtype != np.dtype(dtype) or array.shape != (n,):
        raise ArgumentError(f"{name}: expected {np.dtype(dtype).name} ({n},), got {array.dtype} {array.shape}")
    return array


def from_file(segments: Any, arrays: Mapping[str, NDArray[Any]], n: int, n_bits: int) -> Iterator[Segment]:
    """The segments of a file, with everything checked that the kernels rely on."""
    first = 0
    for i, described in enumerate(segments):
        count = check_int("count", described["count"], 1, min(n - first, _MAX_ROWS))
        tables = []
        for j, table in enumerate(described["tables"]):
            parts = arrays[f"offsets {i} {j}"], arrays[f"rows {i} {j}"], arrays.get(f"words {i} {j}")
            tables.append(_checked_table(table, *parts, count, n_bits))
        _check_together(tables)
        yield Segment(first, count, tuple(tables))
        first += count


def _checked_table(meta: Mapping[str, Any], offsets: Any, rows: Any, words: Any, count: int, n_bits: int) -> Table:
    first_bit = check_int("first_bit", meta["first_bit"], 0, n_bits - 1)
    key_bits = check_int("key_bits", meta["key_bits"], 1, min(n_bits - first_bit, MAX_KEY_BITS))
    offsets = checked_array("offsets", offsets, np.uint32, (1 << key_bits) + 1)
    rows = checked_array("rows", rows, np.uint32, count)
    width = 0
    if words is not None:
        width = check_int("width of words", (words.size - PADDING) // count, 1, min(WORD, -(-n_bits // 8)))
        words = checked_array("words", words, np.uint8, count * width + PADDING)
    word_at = check_int("word_at", meta["word_at"], 0, -(-n_bits // 8) - width)
    if offsets[0] != 0 or offsets[-1] != count or (offsets[1:] < offsets[:-1]).any():
        raise ArgumentError(f"offsets: expected to rise from 0 to {count}")
    if rows.max() >= count:
        raise ArgumentError(f"rows: expected less than {count}, got {rows.max()}")
    return Table(first_bit, key_bits, word_at, offsets, rows, words)


def _check_together(tables: list[Table]) -> None:
    """Keys that share no bit, and the same width of words."""
    check_int("tables", len(tables), 1, MAX_TABLES)
    for table, after in pairwise(tables):
        if table.first_bit + table.key_bits > after.first_bit:
            raise ArgumentError("tables: expected keys that share no bit")
        if (table.words is None) != (after.words is None) or table.nbytes - table.offsets.nbytes != (
            after.nbytes - after.offsets.nbytes
        ):
            raise ArgumentError("tables: expected words of one width")
