"""Bits to packed codes and back; the one place that says how bits lie in a code.

A code of ``n_bits`` bits is ``ceil(n_bits / 8)`` bytes (uint8) in :func:`numpy.packbits` order: bit 0 is the highest
bit of the first byte, and the unused low bits of the last byte are zero.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._validation import as_array, as_codes, as_vectors, check_int
from fasthash.errors import ArgumentError


def pack_bits(bits: Any) -> NDArray[np.uint8]:
    """Pack bits into codes.

    Parameters
    ----------
    bits : bool or integers (0 or 1), shape (n, n_bits) or (n_bits,)

    Returns
    -------
    uint8, shape (n, n_bytes) or (n_bytes,), in :func:`numpy.packbits` order

    Raises
    ------
    ArgumentError
        Where ``bits`` has another dtype or shape, or holds anything but 0 and 1.
    """
    array = np.asarray(bits)
    if array.dtype.kind not in "bui":
        raise ArgumentError(f"bits: expected bool or integers, got {array.dtype}")
    if array.ndim not in (1, 2) or array.shape[-1] == 0:
        raise ArgumentError(f"bits: expected shape (n, n_bits) or (n_bits,) with n_bits at least 1, got {array.shape}")
    if array.size and array.dtype != np.bool_ and not 0 <= array.min() <= array.max() <= 1:
        raise ArgumentError(f"bits: expected only 0 and 1, got {array.min()} to {array.max()}")
    return np.packbits(array, axis=-1)


def unpack_bits(codes: Any, n_bits: int) -> NDArray[np.uint8]:
    """Unpack codes into bits: the inverse of :func:`pack_bits`.

    Parameters
    ----------
    codes : uint8, shape (n, n_bytes) or (n_bytes,), n_bytes = ceil(n_bits / 8)
    n_bits : int

    Returns
    -------
    uint8 (0 or 1), shape (n, n_bits) or (n_bits,)

    Raises
    ------
    ArgumentError
        Where ``codes`` has another dtype or width, or a one among its unused bits.
    """
    checked = as_padded_codes("codes", codes, check_int("n_bits", n_bits, 1))
    bits = np.unpackbits(checked, axis=1, count=n_bits)
    return bits[0] if np.ndim(codes) == 1 else bits


def binarize(hashes: Any, thresholds: Any, projection: Any = None) -> NDArray[np.uint8]:
    """Turn real-valued hashes into codes: bit j is one where ``hashes[:, j] > thresholds[j]``.

    Thresholds of 0 take the sign. With a ``projection`` it is ``(hashes @ projection.T)[:, j]`` that is compared. The
    comparison is exact: a float64 threshold is not rounded to float32, and products are summed in float64, so that a
    hash has the same code whichever others it comes with.

    Parameters
    ----------
    hashes : float32, finite, shape (n, d) or (d,)
    thresholds : finite real number, or one for each bit, shape (n_bits,); without a projection, n_bits is d
    projection : finite real numbers, shape (n_bits, d), optional

    Returns
    -------
    uint8, shape (n, n_bytes) or (n_bytes,), as :func:`pack_bits` gives

    Raises
    ------
    ArgumentError
        Where either has another dtype or shape, or holds NaN or infinity.
    """
    vectors = _projected(_as_hashes(hashes), projection)
    levels = np.asarray(thresholds)
    if levels.dtype.kind not in "fiu":
        raise ArgumentError(f"thresholds: expected real numbers, got dtype {levels.dtype}")
    if levels.shape not in ((), vectors.shape[1:]):
        raise ArgumentError(f"thresholds: expected one number or shape {vectors.shape[1:]}, got {levels.shape}")
    if not np.isfinite(levels).all():
        raise ArgumentError("thresholds: expected finite numbers, got NaN or infinity")
    levels = levels.astype(np.float64).reshape(-1)
    with np.errstate(over="ignore"):
        narrow = levels.astype(vectors.dtype)
    # The same bits where float32 holds the thresholds, in half the time.
    return _pack_like(hashes, vectors > (narrow if np.array_equal(narrow, levels) else levels))


def binarize_phases(hashes: Any, projection: Any, offsets: Any, bits_per_phase: int) -> NDArray[np.uint8]:
    """Turn real-valued hashes into codes of phases: Hamming distances that grow evenly with those of the hashes.

    Each of ``hashes @ projection.T + offsets`` is a phase in half turns, and the m = ``bits_per_phase`` bits of it are
    a Johnson counter: of its 2 m sectors a turn, neighbours differ by one bit and opposite ones by all m. So two codes
    differ by the turns between their phases, m bits a half turn, to within a bit a phase; beyond half a turn it wraps.
    Bit j of a phase x is one where ``floor(x + j / m)`` is odd.

    Signs of 64 values that change now and then flip at random, as in a Poisson process; the phases' bits flip one after
    the other. Source: ours; periodic codes of random projections are Raginsky and Lazebnik, "Locality-sensitive binary
    codes from shift-invariant kernels", 2009.

    Parameters
    ----------
    hashes : float32, finite, shape (n, d) or (d,)
    projection : finite real numbers, shape (phases, d)
    offsets : finite real numbers, shape (phases,), in half turns
    bits_per_phase : int, at least 1

    Returns
    -------
    uint8, shape (n, n_bytes) or (n_bytes,), as :func:`pack_bits` gives; n_bits is phases * bits_per_phase, bits of one
    phase together

    Raises
    ------
    ArgumentError
        Where one of them has another dtype or shape, or holds NaN or infinity.
    """
    values = _projected(_as_hashes(hashes), projection)
    m = check_int("bits_per_phase", bits_per_phase, 1)
    shifts = as_array("offsets", offsets)
    if shifts.dtype.kind not in "fiu" or shifts.shape != values.shape[1:] or not np.isfinite(shifts).all():
        raise ArgumentError(f"offsets: expected {values.shape[1]} finite numbers, got {shifts.dtype} {shifts.shape}")
    sectors = np.floor((values + shifts) * m) % (2 * m)
    places = sectors[:, :, np.newaxis] + np.arange(m)
    bits = (places >= m) & (places < 2 * m)  # the odd ones of floor(places / m), which takes ten times as long
    return _pack_like(hashes, bits.reshape(len(bits), values.shape[1] * m))


def _projected(vectors: NDArray[np.float32], projection: Any) -> NDArray[Any]:
    if projection is None:
        return vectors
    return vectors.astype(np.float64) @ _as_projection(projection, vectors.shape[1]).T


def _as_projection(projection: Any, d: int) -> NDArray[np.float64]:
    array = as_array("projection", projection)
    if array.dtype.kind not in "fiu" or array.ndim != 2 or array.shape[1] != d or not len(array):
        raise ArgumentError(f"projection: expected real numbers (n_bits, {d}), got {array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        raise ArgumentError("projection: expected finite numbers, got NaN or infinity")
    return array.astype(np.float64)


def binarize_percentile(hashes: Any, percentile: float = 50.0, projection: Any = None) -> NDArray[np.uint8]:
    """Turn real-valued hashes into codes by one threshold per image: a percentile of that image's own values.

    A bit is one where the value is at least the threshold, as in the authors' code: units that are saturated are equal
    to the bit, and with most of them at the top they would otherwise all be zero. With the default, the median, about
    half of the bits of every code are ones.
    Source: Ndung'u et al., "Deep supervised hashing for fast retrieval of radio image cubes", 2023.

    Parameters
    ----------
    hashes : float32, finite, shape (n, d) or (d,)
    percentile : number in [0, 100]; interpolated linearly between values, as :func:`numpy.percentile` does
    projection : finite real numbers, shape (n_bits, d), optional
        As :func:`binarize` has it: the values are then ``hashes @ projection.T``.

    Returns
    -------
    uint8, shape (n, n_bytes) or (n_bytes,), as :func:`pack_bits` gives

    Raises
    ------
    ArgumentError
        Where ``hashes`` has another dtype or shape or holds NaN or infinity, or ``percentile`` is out of range.
    """
    vectors = _projected(_as_hashes(hashes), projection).astype(np.float64)
    if isinstance(percentile, bool) or not isinstance(percentile, (int, float, np.integer, np.floating)):
        raise ArgumentError(f"percentile: expected a number, got {percentile!r}")
    if not 0 <= percentile <= 100:
        raise ArgumentError(f"percentile: expected a number in [0, 100], got {percentile}")
    return _pack_like(hashes, vectors >= np.percentile(vectors, percentile, axis=1, keepdims=True))


def as_padded_codes(name: str, value: Any, n_bits: int) -> NDArray[np.uint8]:
    """Codes of ``n_bits`` bits, shape (n, n_bytes), whose unused bits are zero: a one there would count as a bit."""
    codes = as_codes(name, value, -(-n_bits // 8))
    unused = -n_bits % 8
    stray = np.flatnonzero(codes[:, -1] & ((1 << unused) - 1))
    if stray.size:
        raise ArgumentError(
            f"{name}: expected zero in the last {unused} bits of {n_bits}-bit codes; row {stray[0]} has a one"
        )
    return codes


def _as_hashes(value: Any) -> NDArray[np.float32]:
    hashes = as_vectors("hashes", value)
    if hashes.shape[1] == 0:
        raise ArgumentError("hashes: expected at least 1 dimension, got 0")
    return hashes


def _pack_like(hashes: Any, bits: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return pack_bits(bits[0] if np.ndim(hashes) == 1 else bits)
