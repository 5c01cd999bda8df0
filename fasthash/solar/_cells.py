"""Numba kernel of the field map; it trusts its input (field_map.py checks it).

A pixel is shared among cells by area, as if its sides were parallel to theirs: exact where the disk is upright, and
without consequence where it is turned, since what one pixel gains its neighbour loses.

Most pixels lie whole in one cell, and so do their neighbours in the row: such a run is added up at once, in vectors,
which are LLVM's own (see _grid.py): a sum of floats as it stands could not be.
"""

from math import floor
from typing import Any

from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic, models, register_model

from fasthash._machine_code import to_assembly

# Pixels added up side by side. Part of what a sum is, to its last bit: not to be chosen by CPU.
LANES = 8
_OPTIONS: dict[str, Any] = {"nogil": True, "inline": "always", "error_model": "numpy"}


@njit(**_OPTIONS)
def _steps(value, low, high, per_step):
    """How often ``1 / per_step`` can be added to ``value``, which lies in [low, high], until it leaves that."""
    if per_step > 0:
        return (high - value) * per_step
    return (low - value) * per_step if per_step < 0 else 1e9


class _Doubles(types.Type):
    """Eight float64 numbers in vector registers."""

    def __init__(self) -> None:
        super().__init__(name="Doubles")


_doubles = _Doubles()
_VECTOR = ir.VectorType(ir.DoubleType(), LANES)


@register_model(_Doubles)
class _DoublesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


@intrinsic
def _zeros(typingctx):
    def codegen(context, builder, signature, args):
        return ir.Constant(_VECTOR, None)

    return _doubles(), codegen


def _load(context, builder, row, array, start):
    """``array[start : start + 8]``, and which of them are no NaN."""
    floats = ir.VectorType(ir.FloatType(), LANES)
    data = context.make_array(row)(context, builder, array).data
    pixels = builder.load(builder.bitcast(builder.gep(data, [start]), floats.as_pointer()), align=4)
    return pixels, builder.fcmp_ordered("ord", pixels, pixels)


@intrinsic
def _add_valid(typingctx, totals, row, start):
    """``totals`` with each pixel of ``row[start : start + 8]`` that is not NaN added in its own lane."""

    def codegen(context, builder, signature, args):
        pixels, valid = _load(context, builder, row, *args[1:])
        pixels = builder.select(valid, pixels, ir.Constant(pixels.type, None))
        return builder.fadd(args[0], builder.fpext(pixels, _VECTOR))

    return _doubles(_doubles, row, types.int64), codegen


@intrinsic
def _count_valid(typingctx, counts, row, start):
    """``counts`` with 1 added in the lanes of the pixels that are not NaN."""

    def codegen(context, builder, signature, args):
        _, valid = _load(context, builder, row, *args[1:])
        return builder.fadd(args[0], builder.uitofp(valid, _VECTOR))

    return _doubles(_doubles, row, types.int64), codegen


@intrinsic
def _sum(typingctx, totals):
    """The sum of all lanes, always in the same order."""

    def codegen(context, builder, signature, args):
        lanes = [builder.extract_element(args[0], ir.IntType(32)(i)) for i in range(LANES)]
        while len(lanes) > 1:
            lanes = [builder.fadd(a, b) for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
        return lanes[0]

    return types.float64(_doubles), codegen


@njit(**_OPTIONS)
def _sum_of_run(row, start, stop):
    """The sum of the valid pixels of ``row[start:stop]``, and how many they are."""
    totals, counts = _zeros(), _zeros()
    whole = start + (stop - start) // LANES * LANES
    for k in range(start, whole, LANES):
        totals = _add_valid(totals, row, k)
        counts = _count_valid(counts, row, k)
    total, count = _sum(totals), _sum(counts)
    for k in range(whole, stop):
        if row[k] == row[k]:
            total += row[k]
            count += 1.0
    return total, count


def _add_rows(
    band_at, width, first_row, last_row, spans_at, x, y, radius, cosine, sine, size, total_at, area_at
):  # fmt: skip
    """Add the pixels of ``band`` (last_row - first_row, width), rows of an image, to ``total`` and ``area``.

    Of row ``r`` the pixels from ``spans[0, r - first_row]`` to before ``spans[1, r - first_row]`` count, of which NaN
    counts nowhere. ``total`` and ``area``: float64 (size, size), sums of field and of pixels in cells. ``cosine`` and
    ``sine``: of the angle by which solar north is turned to the right.
    """
    band, spans = carray(band_at, (last_row - first_row, width)), carray(spans_at, (2, last_row - first_row))
    total, area = carray(total_at, (size, size)), carray(area_at, (size, size))
    cells, pixels = size / (2 * radius), 2 * radius / size  # the side of a pixel in cells, and that of a cell in pixels
    per_left, per_low = pixels / cosine if cosine != 0 else 0.0, pixels / sine if sine != 0 else 0.0
    for r in range(last_row - first_row):
        up = first_row + r - y
        row = band[r]
        c, stop = spans[0, r], spans[1, r]
        while c < stop:
            right = c - x
            left = (cosine * right - sine * up - 0.5) * cells + size / 2
            low = (sine * right + cosine * up - 0.5) * cells + size / 2
            i, j = max(0, floor(low)), max(0, floor(left))
            if left >= j and low >= i and left + cells <= j + 1 and low + cells <= i + 1:  # whole, in one cell
                more = min(_steps(left, j, j + 1 - cells, per_left), _steps(low, i, i + 1 - cells, per_low))
                end = min(stop, c + 1 + int(max(more, 0.0)))
                value, count = _sum_of_run(row, c, end)
                total[i, j] += value
                area[i, j] += count
                c = end
                continue
            value = row[c]
            c += 1
            if value != value:
                continue
            for cell_row in range(i, min(size, floor(low + cells) + 1)):
                height_in = (min(low + cells, cell_row + 1) - max(low, cell_row)) * pixels
                for column in range(j, min(size, floor(left + cells) + 1)):
                    share = height_in * (min(left + cells, column + 1) - max(left, column)) * pixels
                    total[cell_row, column] += share * value
                    area[cell_row, column] += share


def compile_add_rows() -> tuple[str, str]:
    """The optimised LLVM assembly for this CPU, and the name of the function in it."""
    index, real, at = types.int64, types.float64, types.CPointer
    signature = types.void(
        at(types.float32), index, index, index, at(index), real, real, real, real, real, index, at(real), at(real)
    )
    return to_assembly(_add_rows, signature)
