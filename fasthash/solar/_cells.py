"""Numba kernel of the field map; it trusts its input (field_map.py checks it).

A pixel is shared among cells by area, as if its sides were parallel to theirs: exact where the disk is upright, and
without consequence where it is turned, since what one pixel gains its neighbour loses.
"""

from math import ceil, floor, sqrt

from numba import carray, types

from fasthash._machine_code import to_assembly


def _add_rows(pixels_at, height, width, first_row, last_row, x, y, radius, cosine, sine, size, total_at, area_at):
    """Add the pixels of rows [first_row, last_row) whose centres lie on the disk to ``total`` and ``area``.

    ``pixels``: float32 (height, width), of which NaN counts nowhere. ``total`` and ``area``: float64 (size, size), sums
    of field and of pixels in cells. ``cosine`` and ``sine``: of the angle by which solar north is turned to the right.
    """
    pixels = carray(pixels_at, (height, width))
    total, area = carray(total_at, (size, size)), carray(area_at, (size, size))
    cells = size / (2 * radius)  # a pixel's side, in cells
    for r in range(first_row, last_row):
        up = r - y
        if abs(up) > radius:
            continue
        chord = sqrt(radius * radius - up * up)
        for c in range(max(0, ceil(x - chord)), min(width, floor(x + chord) + 1)):
            value = pixels[r, c]
            if value != value:
                continue
            right = c - x
            left = (cosine * right - sine * up - 0.5) * cells + size / 2
            low = (sine * right + cosine * up - 0.5) * cells + size / 2
            i, j = max(0, floor(low)), max(0, floor(left))
            if left >= j and low >= i and left + cells <= j + 1 and low + cells <= i + 1:  # whole, in one cell
                total[i, j] += value
                area[i, j] += 1.0
                continue
            for row in range(i, min(size, floor(low + cells) + 1)):
                height_in = (min(low + cells, row + 1) - max(low, row)) / cells
                for column in range(j, min(size, floor(left + cells) + 1)):
                    share = height_in * (min(left + cells, column + 1) - max(left, column)) / cells
                    total[row, column] += share * value
                    area[row, column] += share


def compile_add_rows() -> tuple[str, str]:
    """The optimised LLVM assembly for this CPU, and the name of the function in it."""
    index, real, at = types.int64, types.float64, types.CPointer
    signature = types.void(
        at(types.float32), index, index, index, index, real, real, real, real, real, index, at(real), at(real)
    )
    return to_assembly(_add_rows, signature)
