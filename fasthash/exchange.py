"""Catalogs as tables that other programs read and write: Parquet and VOTable. Sole importer of astropy.table.

A table has one row an image, in the order in which they were added, and these columns:

    path      text; characters that are not printable, and the backslash, as Python escapes them
    digest    BLAKE2b-128 of the file's bytes, hexadecimal
    time      ISO 8601, UTC; empty where unknown
    label     text, as the path; empty where unknown
    metadata  JSON of some header cards, as the path; empty where there are none
    hash      float32 (dim)
    code      uint8 (n_bytes), its bits in numpy.packbits order
    cells     uint8 (values), what searches of a region compare; zeros where an image has none
    checksum  BLAKE2b-64 of all of the above, hexadecimal

and says in its metadata which encoder made the hashes. Rows may be left out, put in order or put together from several
tables. To change what is in a row takes leaving out the column of checksums, by which damage is told from intent.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._storage import atomic_write
from fasthash.catalog import AddReport, Catalog, entry_of
from fasthash.encoder import Encoded, Encoder, load_encoder, shipped_encoders
from fasthash.errors import ArgumentError, EncoderError, FastHashError, MissingDependencyError, ReadError
from fasthash.io import Image
from fasthash.times import NAT, format_time, parse_time

SUFFIXES = {".parquet": "parquet", ".xml": "votable", ".vot": "votable"}
_FORMAT = "fasthash catalog 1"
_BATCH = 16384  # rows that are Python objects at a time
_TEXTS = {
    "path": "where the image was read from",
    "digest": "BLAKE2b-128 of the file's bytes",
    "time": "when the image was taken, UTC",
    "label": "class of the image",
    "metadata": "header cards, JSON",
}
_ARRAYS = {"hash": "hash of the image", "code": "bits of the hash, packed", "cells": "the image cell by cell"}
_CHECKSUM = {"checksum": "BLAKE2b-64 of the row's other values"}
_ESCAPED = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[\\ntr])")


# ---- export --------------------------------------------------------------------------------------------------------


def export_table(catalog: Catalog, path: str | Path) -> int:
    """Write all rows of a catalog to a Parquet or VOTable file, by its suffix; returns how many there were.

    Raises ArgumentError where the suffix is of neither, MissingDependencyError without pyarrow for Parquet.
    """
    kind = _kind_of(path)
    table = _as_table(catalog)
    with atomic_write(path) as file:
        if kind == "parquet":
            table.write(file.name, format="parquet", overwrite=True)
        else:
            _write_votable(table, file.name)
    return len(table)


def _as_table(catalog: Catalog) -> Any:
    from astropy.table import Column, Table

    rows = catalog.rows(details=True)
    columns = {
        "path": [_escaped(path) for path in rows.paths],
        "digest": rows.digests,
        "time": [format_time(time) for time in rows.times],
        "label": [_escaped(label) for label in rows.labels.tolist()],
        "metadata": [_escaped(text) for text in rows.metadata],
        "hash": rows.hashes,
        "code": rows.codes,
        "cells": _stacked(rows.cells),
    }
    columns["checksum"] = list(_checksums(columns))
    described = _TEXTS | _ARRAYS | _CHECKSUM
    meta = {"format": _FORMAT, "encoder": catalog.encoder.fingerprint, "encoder_name": catalog.encoder.name}
    made = [Column(_as_column(columns[name]), name, description=text) for name, text in described.items()]
    return Table(made, meta=meta)


def _as_column(values: Any) -> NDArray[Any]:
    return np.array(values, np.str_) if isinstance(values, list) else values


def _stacked(cells: list[NDArray[np.uint8] | None]) -> NDArray[np.uint8]:
    width = max((len(some) for some in cells if some is not None), default=1)
    rows = [np.zeros(width, np.uint8) if some is None else some for some in cells]
    return np.array(rows, np.uint8).reshape(-1, width)


def _checksums(columns: dict[str, Any]) -> Iterator[str]:
    """Of each row: no value can be changed, nor bytes moved from one to the next, without another checksum."""
    words = zip(*(columns[name] for name in _TEXTS), strict=True)
    values = zip(columns["hash"].astype("<f4"), columns["code"], columns["cells"], strict=True)
    for row, parts in zip(words, values, strict=True):
        content = "\n".join((*row, "")).encode() + b"".join(part.tobytes() for part in parts)
        yield hashlib.blake2b(content, digest_size=8).hexdigest()


def _write_votable(table: Any, path: str) -> None:
    from astropy.io.votable import from_table
    from astropy.io.votable.tree import Param

    votable = from_table(table, "images")
    inner = votable.get_first_table()
    for name, value in table.meta.items():
        inner.params.append(Param(votable, name=name, datatype="char", arraysize="*", value=value))
    votable.to_xml(path, tabledata_format="binary2")  # in which a float keeps all its bits


# ---- import --------------------------------------------------------------------------------------------------------


def import_table(path: str | Path, catalog: str | Path, encoder: str | Path | None = None) -> AddReport:
    """Add the rows of a table to a catalog, which is made where there is none; durable when it returns.

    Parameters
    ----------
    path : a file that `export_table` wrote, or another program in its form
    catalog : path
    encoder : name or path, optional
        Of the encoder for a catalog that is to be made; by default the shipped one that the table names.

    Raises
    ------
    ReadError
        Where the file is no such table, or a value in it is damaged or not what the encoder would give; it names the
        row. Nothing is added then.
    FastHashError
        Where the catalog cannot be written; of what was added before, nothing is added again by another try.
    EncoderError
        Where the hashes are another encoder's.
    """
    table = _read_table(path)
    if Path(catalog).exists():
        with Catalog.open(catalog) as target:
            return _insert(_checked(table, target.encoder, path), target)
    made_by = _encoder_of(table, path, encoder)
    columns = _checked(table, made_by, path)
    with Catalog.create(catalog, made_by) as target:
        return _insert(columns, target)


def _insert(columns: dict[str, Any], catalog: Catalog) -> AddReport:
    report = AddReport([], [], [], [])
    n = len(columns["path"])
    for start in range(0, n, _BATCH):
        rows = range(start, min(start + _BATCH, n))
        part = catalog.insert([_as_item(columns, row, catalog.encoder) for row in rows])
        report.added.extend(part.added)
        report.known.extend(part.known)
    return report


def _read_table(path: str | Path) -> Any:
    kind = _kind_of(path)
    try:
        table = _read_votable(path) if kind == "votable" else _read_parquet(path)
    except FastHashError:
        raise
    except OSError as error:
        raise ReadError(f"{path}: cannot read: {error.strerror or error}") from error
    except Exception as error:  # parsers of untrusted bytes raise anything
        raise ReadError(f"{path}: damaged, or no {kind} file: {' '.join(str(error).split())[:200]}") from error
    missing = [name for name in (*_TEXTS, *_ARRAYS) if name not in table.colnames]
    if missing:
        raise ReadError(f"{path}: has no column {missing[0]}; expected a table that `fasthash export` wrote")
    if table.meta.get("format") != _FORMAT or "encoder" not in table.meta:
        raise ReadError(f"{path}: does not say which encoder made it; expected a table that `fasthash export` wrote")
    return table


def _read_parquet(path: str | Path) -> Any:
    from astropy.table import Table

    return Table.read(path, format="parquet")


def _read_votable(path: str | Path) -> Any:
    from astropy.io.votable import parse_single_table

    source = parse_single_table(str(path))
    table = source.to_table()
    table.meta |= {param.name: str(param.value) for param in source.params}
    return table


def _kind_of(path: str | Path) -> str:
    kind = SUFFIXES.get(Path(path).suffix.lower())
    if kind is None:
        raise ArgumentError(f"{path}: expected a name ending in {' or '.join(SUFFIXES)}")
    if kind == "parquet":
        try:
            import pandas  # noqa: F401
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError(f"{path}: Parquet needs pyarrow: pip install 'fasthash[parquet]'") from error
    return kind


def _encoder_of(table: Any, path: str | Path, encoder: str | Path | None) -> Encoder:
    if encoder is not None:
        return load_encoder(encoder)
    for name in shipped_encoders():
        shipped = load_encoder(name)
        if shipped.fingerprint == table.meta["encoder"]:
            return shipped
    raise EncoderError(f"{path}: no encoder that comes with fasthash made it; give the one that did (--encoder)")


def _checked(table: Any, encoder: Encoder, path: str | Path) -> dict[str, Any]:
    """The columns, of which every row can be what the encoder gave."""
    if encoder.fingerprint != table.meta["encoder"]:
        made_by = table.meta.get("encoder_name", "")
        raise EncoderError(f"{path}: its hashes are of another encoder ({made_by}) than {encoder.name}")
    texts = {name: [str(value) for value in _filled(table[name], "")] for name in _TEXTS}
    arrays = {
        "hash": _as_matrix(_filled(table["hash"], np.nan), np.float32, encoder.dim, f"{path}: column hash"),
        "code": _as_matrix(_filled(table["code"], 0), np.uint8, -(-encoder.n_bits // 8), f"{path}: column code"),
        "cells": _as_matrix(_filled(table["cells"], 0), np.uint8, None, f"{path}: column cells"),
    }
    columns = texts | arrays
    checksums = _filled(table["checksum"], "").tolist() if "checksum" in table.colnames else None
    for row, what in _flaws(columns, checksums, encoder):
        raise ReadError(f"{path}: row {row + 1} ({texts['path'][row]}): {what}")
    return columns


def _flaws(columns: dict[str, Any], checksums: list[str] | None, encoder: Encoder) -> Iterator[tuple[int, str]]:
    """Rows that no encoder gave, each with what is wrong; to be asked for the next one only where that is mended."""
    if checksums is not None:
        for row, (made, given) in enumerate(zip(_checksums(columns), checksums, strict=True)):
            if made != given:
                yield row, "does not fit its checksum: damaged, or edited with the checksum left in"
    for row in np.flatnonzero(~np.isfinite(columns["hash"]).all(axis=1)).tolist():
        yield row, "its hash holds NaN or infinity"
    for row in np.flatnonzero((encoder.binarize(columns["hash"]) != columns["code"]).any(axis=1)).tolist():
        yield row, "its code is not that of its hash"
    row = 0
    try:
        for row in range(len(columns["path"])):
            entry_of(_as_item(columns, row, encoder), encoder)
    except (ValueError, RecursionError) as error:
        yield row, str(error)


def _as_item(columns: dict[str, Any], row: int, encoder: Encoder) -> Encoded:
    """One row as the encoder would give it. Raises ValueError where a text is not of its form."""
    path, digest, time, label, metadata = (columns[name][row] for name in _TEXTS)
    if not re.fullmatch("[0-9a-f]{32}", digest):
        raise ArgumentError(f"digest: expected 32 hexadecimal digits, got {digest!r}")
    header = json.loads(_unescaped(metadata) or "{}")
    if not isinstance(header, dict):
        raise ArgumentError(f"metadata: expected a JSON object, got {metadata!r}")
    taken = parse_time("time", time) if time else NAT
    image = Image(np.empty((0, 0), np.float32), _unescaped(path), taken, header, digest=digest)
    cells = columns["cells"][row]
    return Encoded(image, columns["hash"][row], _unescaped(label), cells if cells.any() else None, encoder.fingerprint)


def _as_matrix(array: NDArray[Any], dtype: Any, width: int | None, name: str) -> NDArray[Any]:
    """The column, with so many values a row (None: any number)."""
    matrix = array.reshape(len(array), -1) if array.size else np.empty((0, width or 1), array.dtype)
    if matrix.dtype.newbyteorder("=") != np.dtype(dtype) or width not in (None, matrix.shape[1]):
        wanted = f"{np.dtype(dtype).name} of {width or 'some'} values"
        raise ReadError(f"{name}: expected {wanted}, got {matrix.dtype.name} of {matrix.shape[1]}")
    return np.ascontiguousarray(matrix, dtype)


def _filled(column: Any, value: Any) -> Any:
    return column.filled(value).data if hasattr(column, "filled") else column.data


def _escaped(text: str) -> str:
    """Text that any format can hold: file names may have bytes that are no text, and labels line breaks."""
    return "".join(
        c if c.isprintable() and c != "\\" and c < "\U00010000" else c.encode("unicode_escape").decode() for c in text
    )


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: match[0].encode().decode("unicode_escape"), text)
