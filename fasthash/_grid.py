"""Numba kernels of the grid histogram; they trust their input (descriptor.py checks it).

Scattering ``counts[bin] += 1`` is bound by store-to-load forwarding, since most pixels of a quiet Sun fall into the
same two bins. So pixels are first turned into bin numbers of one byte, and then every bin counts the bytes that equal
its own number, 32 at a time. Neither loop has a dependency between pixels. The 32-byte vectors are LLVM's own, which
it maps to whatever registers the CPU has (one of AVX-512, two of AVX2, four of SSE or NEON).
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, from_dtype, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from fasthash._machine_code import to_assembly
from fasthash.descriptor import LANES

# Vectors that can be compared before a lane, a byte, might overflow.
_MAX_VECTORS = 255
_OPTIONS: dict[str, Any] = {"nogil": True, "inline": "always", "error_model": "numpy"}


class _Bytes(types.Type):
    """32 unsigned bytes in a vector register."""

    def __init__(self) -> None:
        super().__init__(name="Bytes")


_bytes = _Bytes()
_VECTOR = ir.VectorType(ir.IntType(8), LANES)  # with 64 lanes LLVM compares into mask registers, which is slower


@register_model(_Bytes)
class _BytesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


@intrinsic
def _splat(typingctx, value):
    """The low byte of ``value`` in every lane."""

    def codegen(context, builder, signature, args):
        byte = builder.trunc(args[0], ir.IntType(8))
        one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), byte, ir.IntType(32)(0))
        return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), LANES), None))

    return _bytes(types.int64), codegen


@intrinsic
def _load(typingctx, array, start):
    """``array[start : start + 32]``."""

    def codegen(context, builder, signature, args):
        data = context.make_array(array)(context, builder, args[0]).data
        address = builder.bitcast(builder.gep(data, [args[1]]), _VECTOR.as_pointer())
        return builder.load(address, align=1)

    return _bytes(array, types.int64), codegen


@intrinsic
def _add_equal(typingctx, totals, block, own):
    """``totals`` with one more in every lane where ``block`` equals ``own``."""

    def codegen(context, builder, signature, args):
        equal = builder.icmp_unsigned("==", args[1], args[2])
        return builder.sub(args[0], builder.sext(equal, _VECTOR))

    return _bytes(_bytes, _bytes, _bytes), codegen


@intrinsic
def _sum(typingctx, totals):
    """The sum of all lanes."""

    def codegen(context, builder, signature, args):
        wide = ir.VectorType(ir.IntType(16), LANES)
        reduce = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.IntType(16), [wide]), f"llvm.vector.reduce.add.v{LANES}i16"
        )
        return builder.call(reduce, [builder.zext(args[0], wide)])

    return types.uint16(_bytes), codegen


@njit(**_OPTIONS)
def _count_few(numbers, used, counts):
    """Add how often each of a few bins stands in ``numbers[:used]``; writes up to 31 bytes behind."""
    vectors = (used + LANES - 1) // LANES
    for i in range(used, vectors * LANES):
        numbers[i] = counts.size
    for first in range(0, vectors, _MAX_VECTORS):
        last = min(first + _MAX_VECTORS, vectors)
        for j in range(0, counts.size, 4):  # four bins for each load
            own_0, own_1, own_2, own_3 = _splat(j), _splat(j + 1), _splat(j + 2), _splat(j + 3)
            none = _splat(0)
            total_0, total_1, total_2, total_3 = none, none, none, none
            for v in range(first, last):
                block = _load(numbers, v * LANES)
                total_0 = _add_equal(total_0, block, own_0)
                total_1 = _add_equal(total_1, block, own_1)
                total_2 = _add_equal(total_2, block, own_2)
                total_3 = _add_equal(total_3, block, own_3)
            counts[j] += _sum(total_0)
            if j + 1 < counts.size:
                counts[j + 1] += _sum(total_1)
            if j + 2 < counts.size:
                counts[j + 2] += _sum(total_2)
            if j + 3 < counts.size:
                counts[j + 3] += _sum(total_3)


@njit(**_OPTIONS)
def _count_many(numbers, used, counts):
    """The same for so many bins that scattering is cheaper than comparing with each."""
    for i in range(used):
        if numbers[i] < counts.size:
            counts[numbers[i]] += np.uint32(1)


@njit(**_OPTIONS)
def _number_even(pixels, low, high, edges, numbers):
    """Bin numbers of pixels where ``edges[j] == (j - shift) * width`` to the last bit; outside: ``n_bins``."""
    n_bins = edges.size - 1
    real = edges.dtype.type
    width = edges[n_bins // 2 + 1] - edges[n_bins // 2]
    shift = -edges[0] / width
    per_width = real(1) / width
    for i in range(pixels.size):
        x = pixels[i]
        # The nearest edge, then one comparison with it: exact, however the product was rounded.
        nearest = np.rint(x * per_width)
        number = nearest + shift if x >= nearest * width else nearest + (shift - real(1))
        number = min(max(number, real(0)), real(n_bins - 1))
        numbers[i] = np.int32(number if (x >= low) & (x <= high) else real(n_bins))


@njit(**_OPTIONS)
def _number_any(pixels, low, high, edges, numbers):
    """Bin numbers of pixels for any increasing edges; outside: ``n_bins``."""
    n_bins = edges.size - 1
    first = np.float64(edges[0])
    per_width = n_bins / (np.float64(edges[n_bins]) - first)
    for i in range(pixels.size):
        x = pixels[i]
        number = n_bins
        if (x >= low) & (x <= high):
            number = int(min(max((x - first) * per_width, 0.0), n_bins - 1.0))
            while number > 0 and x < edges[number]:
                number -= 1
            while number < n_bins - 1 and x >= edges[number + 1]:
                number += 1
        numbers[i] = number


def compile_grid_histogram(real: type, few_bins: bool, even: bool) -> tuple[str, str]:
    """The optimised LLVM assembly for this CPU, and the name of the function in it.

    One function for pixels and edges of type ``real``, for few or many bins, for even edges or any.
    """
    number_pixels = _number_even if even else _number_any
    count = _count_few if few_bins else _count_many

    def add_rows(
        band_at, width, first_row, last_row, spans_at, row_edges_at, rows, col_edges_at, cols,
        low, high, edges_at, n_bins, numbers_at, scratch, counts_at,
    ):  # fmt: skip
        """Add ``band`` (last_row - first_row, width), rows of an image, to ``counts`` (rows, cols, n_bins).

        Of row ``y`` the pixels from ``spans[0, y - first_row]`` to before ``spans[1, y - first_row]`` count, but for
        those below ``low`` or above ``high`` and NaN. ``numbers`` (scratch,) is LANES longer than the widest cell.
        """
        band, edges = carray(band_at, (last_row - first_row, width)), carray(edges_at, (n_bins + 1,))
        spans = carray(spans_at, (2, last_row - first_row))
        row_edges, col_edges = carray(row_edges_at, (rows + 1,)), carray(col_edges_at, (cols + 1,))
        numbers, counts = carray(numbers_at, (scratch,)), carray(counts_at, (rows, cols, n_bins))
        cell_row = 0
        for y in range(first_row, last_row):
            while y >= row_edges[cell_row + 1]:
                cell_row += 1
            for c in range(cols):
                start = max(col_edges[c], spans[0, y - first_row])
                stop = min(col_edges[c + 1], spans[1, y - first_row])
                if start < stop:
                    pixels = band[y - first_row, start:stop]
                    number_pixels(pixels, low, high, edges, numbers)
                    count(numbers, pixels.size, counts[cell_row, c])

    pixel, index, number = from_dtype(np.dtype(real)), types.int64, types.uint8 if few_bins else types.uint16
    at = types.CPointer
    signature = types.void(
        at(pixel), index, index, index, at(index), at(index), index, at(index), index,
        pixel, pixel, at(pixel), index, at(number), index, at(types.uint32),
    )  # fmt: skip
    return to_assembly(add_rows, signature)
