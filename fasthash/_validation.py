"""The one gate for arrays and small arguments: what passes it, the kernels may trust.

Nothing is cast in silence: an array of another dtype is an error that says which was wanted. Only the memory
layout is mended (a copy of a strided, big-endian or read-only array), since that changes no value.
"""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash.errors import ArgumentError


def _matrix(name: str, value: Any, dtype: Any, width: int | None, what: str) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype != np.dtype(dtype):
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


def check_int(name: str, value: Any, low: int, high: int | None = None) -> int:
    """An integer of any integer type (not bool) in [low, high]."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise ArgumentError(f"{name}: expected an integer, got {value!r}")
    if value < low or (high is not None and value > high):
        wanted = f"at least {low}" if high is None else f"in [{low}, {high}]"
        raise ArgumentError(f"{name}: expected an integer {wanted}, got {value}")
    return int(value)


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
