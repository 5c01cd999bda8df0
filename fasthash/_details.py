"""What few searches need to know of a catalog's images: header cards, and the cells of their grids.

It stays in the journal until it is asked for, is then checked against the table and kept.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._journal import Journal
from fasthash._table import Table, checks
from fasthash.errors import ArgumentError, CorruptFileError

Ints = NDArray[np.int64]

# Header cards that are kept: what took the image, and where disk or sky lie in it.
CARDS = (
    "TELESCOP", "INSTRUME", "OBJECT", "WAVELNTH", "QUALITY", "CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CDELT1",
    "CROTA2", "RSUN_OBS", "R_SUN", "CRLN_OBS", "CRLT_OBS", "RA", "DEC",
)  # fmt: skip
_HALVES = {"south": (0, 0, 1, 0.5), "north": (0, 0.5, 1, 1), "east": (0, 0, 0.5, 1), "west": (0.5, 0, 1, 1)}


def metadata_of(header: Mapping[str, Any]) -> str:
    """The cards of a header that are kept, as JSON; "" where there are none."""
    kept = {}
    for card in CARDS:
        value = header.get(card)
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, str) or (isinstance(value, (int, float)) and abs(value) <= sys.float_info.max):
            kept[card] = value.strip() if isinstance(value, str) else value
    return json.dumps(kept) if kept else ""


class Details:
    """The details of one catalog's images; not to be shared between threads."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._cards: dict[str, _Card] = {}
        self._cells = np.empty((0, 0), np.uint8)
        self._have_cells = np.empty(0, np.bool_)

    def read(self, table: Table, name: str, start: int) -> list[Any]:
        """ "metadata" or "cells" of the table's rows from ``start`` on; of dead ones perhaps None.

        Raises CorruptFileError where one of a live row is not what was read when the table was made.
        """
        ids, dead = table["ids"][start:], table["dead"][start:]
        found = dict(self._journal.details(name, int(ids[0]) - 1)) if len(ids) else {}
        values = [found.get(number) for number in ids.tolist()]
        wrong = np.flatnonzero((checks(values) != table[f"{name}_checks"][start:]) & ~dead)
        if len(wrong):
            raise CorruptFileError(f"{self._journal.path}: entry {ids[wrong[0]]}: its {name} are damaged")
        return values

    # ---- header cards

    def with_cards(self, table: Table, rows: Ints, where: Mapping[str, Any]) -> Ints:
        """Those of some rows whose header cards have these values, or lie in these (low, high), both included."""
        self._read_cards(table)
        for card, wanted in where.items():
            rows = self._cards[card].fit(rows, wanted)
        return rows

    def _read_cards(self, table: Table) -> None:
        if not self._cards:
            self._cards = {card: _Card() for card in CARDS}
        start = len(self._cards[CARDS[0]].codes)
        if start >= table.n:
            return
        texts = self.read(table, "metadata", start)
        headers = [json.loads(text) if text else {} for text in texts]
        for card, held in self._cards.items():
            held.extend([header.get(card) for header in headers])

    # ---- cells

    def cells(self, table: Table) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """uint8 (n, values), the cells of all rows; and which rows have any, bool (n,)."""
        start = len(self._have_cells)
        if start < table.n:
            blobs = self.read(table, "cells", start)
            width = max(self._cells.shape[1], *(len(blob or b"") for blob in blobs))
            new = np.zeros((table.n, width), np.uint8)
            new[:start, : self._cells.shape[1]] = self._cells
            have = [bool(blob) and len(blob) == width for blob in blobs]
            for row in np.flatnonzero(have).tolist():
                new[start + row] = np.frombuffer(blobs[row], np.uint8)
            self._cells, self._have_cells = new, np.concatenate([self._have_cells, np.array(have, np.bool_)])
        return self._cells[: table.n], self._have_cells[: table.n]


class _Card:
    """The values of one header card: codes int32 (n,), numbers of the different values there are; 0 is no value."""

    def __init__(self) -> None:
        self.codes = np.empty(0, np.int32)
        self._numbers: dict[Any, int] = {None: 0}
        self._values = np.empty(0)  # the different values as float64; NaN for what is no number

    def extend(self, values: list[Any]) -> None:
        new = [self._numbers.setdefault(value, len(self._numbers)) for value in values]
        self.codes = np.concatenate([self.codes, np.array(new, np.int32)])
        self._values = np.array([v if isinstance(v, (int, float)) else np.nan for v in self._numbers], np.float64)

    def fit(self, rows: Ints, wanted: Any) -> Ints:
        """Those of some rows with the wanted value, or one in the wanted range."""
        if isinstance(wanted, tuple):
            values = self._values[self.codes[rows]]
            return rows[(values >= wanted[0]) & (values <= wanted[1])]
        return rows[self.codes[rows] == self._numbers.get(wanted, -1)]


def check_where(where: Mapping[str, Any]) -> None:
    """Refuse what no header card can be compared with."""
    for card, wanted in where.items():
        if card not in CARDS:
            raise ArgumentError(f"where: {card} is not among the header cards kept: {', '.join(CARDS)}")
        parts = wanted if isinstance(wanted, tuple) and len(wanted) == 2 else (wanted,)
        if not isinstance(wanted, str) and not all(isinstance(part, (int, float)) for part in parts):
            raise ArgumentError(f"where: {card}: expected text, a number or two of them, got {wanted!r}")


def cells_within(region: Any, rows: int, cols: int) -> NDArray[np.bool_]:
    """Which cells of a grid, bool (rows, cols), have their middle in a region.

    region: "north", "south", "east", "west", or (x0, y0, x1, y1), as text too, in shares of the grid's width and
    height from its south-eastern corner: x to the west, y to the north.
    """
    box = _HALVES.get(region) if isinstance(region, str) else region
    try:
        x0, y0, x1, y1 = (float(edge) for edge in (region.split(",") if box is None else box))
    except (TypeError, ValueError, AttributeError):
        raise ArgumentError(f"region: expected {', '.join(_HALVES)} or x0,y0,x1,y1, got {region!r}") from None
    x, y = (np.arange(cols) + 0.5) / cols, (np.arange(rows) + 0.5) / rows
    chosen: NDArray[np.bool_] = ((y >= y0) & (y <= y1))[:, None] & ((x >= x0) & (x <= x1))
    if not chosen.any():
        raise ArgumentError(f"region: no cell of {cols} x {rows} has its middle in {region!r}")
    return chosen
