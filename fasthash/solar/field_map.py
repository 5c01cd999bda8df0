"""The field map: the mean line-of-sight field in the cells of a square grid that is laid around the solar disk.

Cells belong to the Sun, not to the image: the disk's centre, radius and rotation place them, and a pixel that several
cells share counts in each by the area they have in common. So size, plate scale, offset and CROTA2 of an image change
next to nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._validation import check_int
from fasthash.errors import ReadError
from fasthash.io import Image
from fasthash.solar.magnetogram import Disk, disk_from_header, mask_sky, to_gauss


def field_map(pixels: NDArray[np.float32], disk: Disk, size: int = 64) -> NDArray[np.float32]:
    """Mean of the valid pixels of the disk in each cell, float32 (size, size), north up; 0 where a cell has none.

    ``pixels``: float32 (H, W), gauss, NaN where there is no value. Turned by the multiple of 90 degrees nearest to the
    disk's rotation exactly, and by the rest through bilinear interpolation between the cells. What valid pixels cover
    counts as half a cell at least: the few pixels of a sliver at the limb would be noise that each size draws anew.
    """
    quarters = round(disk.rotation / 90.0)
    pixels, disk = np.rot90(mask_sky(pixels, disk), -quarters), _turned(disk, pixels.shape, quarters)
    rows, columns = (_overlap(n, c, disk.radius, size) for n, c in zip(pixels.shape, (disk.y, disk.x), strict=True))
    total, area = np.zeros((2, size, pixels.shape[1]), np.float32)
    for cell, weight in enumerate(rows):
        inside = np.flatnonzero(weight)
        block = pixels[inside[0] : inside[-1] + 1] if len(inside) else pixels[:0]
        valid = np.isfinite(block)
        total[cell] = weight[inside] @ np.where(valid, block, np.float32(0))
        area[cell] = weight[inside] @ valid.astype(np.float32)
    total, area = total @ columns.T, area @ columns.T
    if disk.rotation:
        total, area = (_rotated(values, disk.rotation) for values in (total, area))
    half_cell = np.float32(0.5 * (2 * disk.radius / size) ** 2)
    return np.divide(total, np.maximum(area, half_cell), dtype=np.float32)


def _turned(disk: Disk, shape: tuple[int, ...], quarters: int) -> Disk:
    """The disk where `numpy.rot90` with ``-quarters`` puts it."""
    height, width = shape
    x, y = disk.x, disk.y
    for _ in range(quarters % 4):
        x, y, height, width = height - 1 - y, x, width, height
    return replace(disk, x=x, y=y, rotation=disk.rotation - 90.0 * quarters)


def _overlap(n: int, centre: float, radius: float, size: int) -> NDArray[np.float32]:
    """How much of each of ``n`` pixels lies in each cell along one axis: float32 (size, n), in pixels."""
    edges = centre + radius * np.linspace(-1, 1, size + 1)
    left = np.arange(n) - 0.5
    shared = np.minimum(edges[1:, None], left + 1) - np.maximum(edges[:-1, None], left)
    return np.maximum(shared, 0).astype(np.float32)


def _rotated(cells: NDArray[np.float32], degrees: float) -> NDArray[np.float32]:
    """Cells of a Sun whose north is turned by ``degrees`` towards the right, turned upright; nothing outside."""
    size = len(cells)
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    y, x = np.indices((size, size)) - (size - 1) / 2
    column, row = cosine * x + sine * y + (size - 1) / 2, cosine * y - sine * x + (size - 1) / 2
    # One ring of empty cells around, and whatever lies beyond is taken from it.
    padded = np.pad(cells, 1)
    column, row = (np.clip(place + 1, 0, size + 0.999) for place in (column, row))
    j, i = column.astype(np.int64), row.astype(np.int64)
    right, up = (column - j).astype(np.float32), (row - i).astype(np.float32)
    low = padded[i, j] * (1 - right) + padded[i, j + 1] * right
    high = padded[i + 1, j] * (1 - right) + padded[i + 1, j + 1] * right
    return low * (1 - up) + high * up


def _disk_of_valid(pixels: NDArray[np.float32]) -> Disk | None:
    """The disk in the bounding box of the valid pixels, north up; None where there are none."""
    valid = np.isfinite(pixels)
    rows, columns = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    if not len(rows):
        return None
    height, width = (int(edge[-1] - edge[0]) + 1 for edge in (rows, columns))
    return Disk((columns[0] + columns[-1]) / 2, (rows[0] + rows[-1]) / 2, max(height, width) / 2, 0.0)


class FieldMap:
    """The front end of encoders of kind "field-map": `field_map` of a magnetogram.

    The disk is the header's; without one, it fills the bounding box of the valid pixels. ``size``: cells a side.
    """

    def __init__(self, size: int = 64) -> None:
        self.size = check_int("size", size, 8, 512)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "FieldMap":
        """From the settings that an encoder's metadata hold."""
        return cls(settings["size"])

    def settings(self) -> dict[str, Any]:
        """What from_settings takes, and JSON can hold."""
        return {"kind": "field-map", "size": self.size}

    def describe(self, image: Image, num_threads: int = 1) -> NDArray[np.float32]:  # noqa: ARG002
        """float32 array (size, size), gauss. Raises ReadError where the disk shows no field at all."""
        pixels = to_gauss(image)
        disk = disk_from_header(image.header) if image.full_scale is None else None
        disk = disk or _disk_of_valid(pixels)
        cells = None if disk is None else field_map(pixels, disk, self.size)
        if cells is None or not cells.any():
            raise ReadError(f"{image.path or 'image'}: no field on the solar disk: every pixel is missing or zero")
        return cells
