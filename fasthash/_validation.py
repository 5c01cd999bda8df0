"""The one gate for arrays and small arguments: what passes it, the kernels may trust.

Nothing is cast in silence: an array of another dtype is an error that says which was wanted. Only the memory
layout is mended (a copy of a strided, big-endian or read-only array), since that changes no value.
"""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash.errors import ArgumentError


def as_array(name: str, value: Any) -> NDArray[Any]:
    """Any array, of whatever dtype and shape; lists of unequal lengths are none."""
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ArgumentError(f"{name}: not an array: {error}") from error


def _matrix(name: str, value: Any, dtype: Any, width: int | None, what: str) -> NDArray[Any]:
    array = as_array(name, value)
    if array.dtype.newbyteorder("=") != np.dtype(dtype):
        raise ArgumentError(f"{name}: expected dtype {np.dtype(dtype).name}, got {array.dtype}")
    if array.ndim == 1:
        array = array[np.newaxis]
    if array.ndim != 2:
        raise ArgumentError(f"{name}: expected shape (n, {what}) or ({what},), got {array.shape}")
    if width is not None and array.shape[1] != width:
        raise ArgumentError(f"{name}: expected {width} {what}, got {array.shape[1]}")
    return np.ascontiguousarray(array, dtype=dtype)


def as_vectors(name: str, value: Any, dim: int | None = None) -> NDArray[np.float32]:
    """Finite float32 vectors, C-contiguous, shape (n, dim); one vector of shape (dim,) becomes (1, dim)."""
    vectors = _matrix(name, value, np.float32, dim, "dimensions")
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise ArgumentError(f"{name}: row {row} holds NaN or infinity")
    return vectors


def as_codes(name: str, value: Any, n_bytes: int | None = None) -> NDArray[np.uint8]:
    """Packed codes, uint8, C-contiguous, shape (n, n_bytes); one code of shape (n_bytes,) becomes (1, n_bytes)."""
    return _matrix(name, value, np.uint8, n_bytes, "bytes")


def as_subset(rows: Any, n: int) -> slice | NDArray[np.int64]:
    """Which of n rows to look at: None for all of them, a slice, a boolean mask (n,), or integers (m,) in any order.

    As ``slice(start, stop)`` with both ends in [0, n], where the rows are neighbours by what was asked; else as rising
    row numbers, none twice. A slice means what it does to a list: what lies outside of it is left out.
    """
    if rows is None:
        return slice(0, n)
    if isinstance(rows, slice):
        return _as_neighbours(rows, n)
    array = as_array("rows", rows)
    if array.dtype == np.bool_:
        if array.shape != (n,):
            raise ArgumentError(f"rows: expected a mask of shape ({n},), got {array.shape}")
        return np.flatnonzero(array)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ArgumentError(
            f"rows: expected integers of shape (m,) or a mask, got {array.dtype} of shape {array.shape}"
        )
    if array.size and (array.min() < 0 or array.max() >= n):
        raise ArgumentError(f"rows: expected row numbers in [0, {n}), got {array.min()} to {array.max()}")
    return np.unique(array).astype(np.int64)


def _as_neighbours(rows: slice, n: int) -> slice | NDArray[np.int64]:
    try:
        picked = range(n)[rows]
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"rows: expected a slice of integers with a step other than 0, got {rows}") from error
    rising = picked if picked.step > 0 else picked[::-1]
    if rising.step == 1 or not rising:
        return slice(rising.start, max(rising.start, rising.stop))
    return np.arange(rising.start, rising.stop, rising.step)


def check_int(name: str, value: Any, low: int, high: int | None = None) -> int:
    """An integer of any integer type (not bool) in [low, high]."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise ArgumentError(f"{name}: expected an integer, got {value!r}")
    if value < low or (high is not None and value > high):
        wanted = f"at least {low}" if high is None else f"in [{low}, {high}]"
        raise ArgumentError(f"{name}: expected an integer {wanted}, got {value}")
    return int(value)


def as_path(value: Any) -> str:
    """The text of a path, which may be a str, bytes or a PathLike."""
    try:
        path = os.fsdecode(value)
    except TypeError:
        raise ArgumentError(f"path: expected a path, got {type(value).__name__}") from None
    if "\0" in path:
        raise ArgumentError(f"path: no file has a NUL in its name, got {path!r}")
    return path


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of a few words."""
    if value not in choices:
        raise ArgumentError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
    return str(value)


def check_threads(num_threads: Any) -> int:
    """A thread count: -1 means every core this process may run on."""
    if num_threads == -1:
        return available_cores()
    return check_int("num_threads", num_threads, 1)


def available_cores() -> int:
    """The cores this process may run on (its affinity mask where the system has one)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
