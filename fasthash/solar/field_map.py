"""The field map: the mean line-of-sight field in the cells of a square grid that is laid around the solar disk.

Cells belong to the Sun, not to the image: the disk's centre, radius and rotation place them, and a pixel that several
cells share counts in each by the area they have in common. So size, plate scale, offset and CROTA2 of an image change
next to nothing.
"""

import ctypes
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._machine_code import machine_code
from fasthash._validation import check_int
from fasthash.errors import ReadError
from fasthash.io import Image
from fasthash.solar.magnetogram import (
    Disk,
    chords,
    disk_from_header,
    disk_of_picture,
    distance_in_radii,
    flatten,
    hmi_gauss,
    to_gauss,
)

# Half the cells of a map of 64 x 64 hold less field than this (G), nearly whatever the Sun's activity: 1.9 and 1.4 in
# real frames of HMI of 2011 and 2016, 1.0 to 1.4 in simulated ones.
_QUIET_CELL = 1.6
# Where quiet grey is this near to mid-grey (of 1000), it is that of no field: in magnetograms it has been found within
# 30 of it, in white light never within 90.
_MID_GREY = 60.0
# Cells a side of the coarse map that a catalog keeps of each image, to compare parts of the disk by.
_CELLS = 16
# No cell of an array in gauss is as weak as this everywhere: the network of the quietest Sun reaches 15.
_NO_GAUSS = 3.0


def field_map(pixels: NDArray[np.float32], disk: Disk, size: int = 64) -> NDArray[np.float32]:
    """Mean of the valid pixels of the disk in each cell, float32 (size, size), north up; 0 where a cell has none.

    ``pixels``: float32 (H, W), gauss, NaN where there is no value. What valid pixels cover counts as half a cell at
    least: the few pixels of a sliver at the limb would be noise that each size draws anew.
    """
    return _field_map(Image(np.ascontiguousarray(pixels, np.float32)), disk, size)


def _field_map(image: Image, disk: Disk, size: int, num_threads: int = 1) -> NDArray[np.float32]:
    sums = np.zeros((2, size, size))  # of field, and of pixels
    spans = chords(image.shape, disk)
    turn = math.radians(disk.rotation)
    where = disk.x, disk.y, disk.radius, math.cos(turn), math.sin(turn), size
    add_rows = _add_rows()

    def sum_band(rows: NDArray[np.float32], first: int) -> NDArray[np.float64]:
        band_sums = np.zeros_like(sums)
        own = np.ascontiguousarray(spans[:, first : first + len(rows)])
        add_rows(
            rows.ctypes.data, rows.shape[1], first, first + len(rows), own.ctypes.data, *where,
            band_sums[0].ctypes.data, band_sums[1].ctypes.data,
        )  # fmt: skip
        return band_sums

    image.fold_bands(sum_band, lambda part: np.add(sums, part, out=sums), num_threads)
    half_cell = 0.5 * (2 * disk.radius / size) ** 2
    return np.asarray(sums[0] / np.maximum(sums[1], half_cell), np.float32)


@functools.cache
def _add_rows() -> Callable[..., None]:
    def compile_it() -> tuple[str, str]:
        from fasthash.solar._cells import compile_add_rows

        return compile_add_rows()

    at, index, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    arguments = (at, index, index, index, at, real, real, real, real, real, index, at, at)
    return machine_code("field-map", Path(__file__).with_name("_cells.py"), compile_it, arguments)


def _disk_of_valid(valid: NDArray[np.bool_]) -> Disk | None:
    """The disk in the bounding box of the valid pixels, north up; None where there are none."""
    rows, columns = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    if not len(rows):
        return None
    height, width = (int(edge[-1] - edge[0]) + 1 for edge in (rows, columns))
    return Disk((columns[0] + columns[-1]) / 2, (rows[0] + rows[-1]) / 2, max(height, width) / 2, 0.0)


def _of_picture(pixels: NDArray[np.float32], size: int) -> NDArray[np.float32] | None:
    """`field_map` of a picture; ``pixels``: its grey from -1000 to 1000. None where all of it is alike."""
    disk = disk_of_picture(pixels)
    if disk is None:
        known = pixels[np.isfinite(pixels)]
        whole = _disk_of_valid(np.isfinite(pixels)) if len(known) and known.min() < known.max() else None
        return None if whole is None else field_map(pixels, whole, size)
    pixels, quiet = flatten(pixels, disk)
    cells = field_map(pixels, disk, size)
    # No one says how many gauss are white in a magnetogram: its quiet network does.
    if np.nanpercentile(np.abs(quiet), 90) < _MID_GREY:  # small rings may lie within a region
        cells *= np.minimum(_to_gauss_by_network(cells), np.float32(1))
    return cells


def _to_gauss_by_network(cells: NDArray[np.float32]) -> np.float32:
    """The factor after which half the cells of a map hold less than those of the quiet network do."""
    middle = (len(cells) - 1) / 2
    inner = distance_in_radii(cells.shape, Disk(middle, middle, len(cells) / 2, 0.0)) < 0.9
    quiet = float(np.median(np.abs(cells[inner])))
    return np.float32(_QUIET_CELL / quiet if quiet > 0 else 1)


class FieldMap:
    """The front end of encoders of kind "field-map": `field_map` of a magnetogram, in HMI's gauss.

    The disk is the header's; without one, it fills the bounding box of the valid pixels. In a picture it is what stands
    out from the sky, and the field is the departure from the quiet Sun (`flatten`). An array without a header that is
    too weak for gauss, such as a contrast, is brought to the strength of the quiet network. ``size``: cells a side.
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

    def describe(self, image: Image, num_threads: int = 1) -> NDArray[np.float32]:
        """float32 array (size, size), gauss. Raises ReadError where the disk shows no field at all."""
        if image.full_scale is not None:
            cells = _of_picture(to_gauss(image), self.size)
        else:
            # Pixels of exactly 0 are a sky that was filled with zeros: on the disk there is noise.
            disk = disk_from_header(image.header) or _disk_of_valid(np.isfinite(image.pixels) & (image.pixels != 0))
            cells = None if disk is None else _field_map(image, disk, self.size, num_threads)
            if cells is not None:
                cells *= np.float32(hmi_gauss(image.header))
            if cells is not None and not image.header and 0 < np.abs(cells).max() < _NO_GAUSS:
                cells *= _to_gauss_by_network(cells)
        if cells is None or not cells.any():
            raise ReadError(f"{image.path or 'image'}: no field on the solar disk: every pixel is missing or zero")
        return cells

    @property
    def cell_grid(self) -> tuple[int, int]:
        """Rows and columns of `cells`: 16, or fewer for a map whose size is no multiple of it."""
        return (math.gcd(self.size, _CELLS),) * 2

    def cells(self, row: NDArray[np.float32]) -> NDArray[np.uint8]:
        """A coarser map, uint8 (n, n, 2).

        The values are the signed roots of a cell's mean field, and of the mean of its strength, in steps of half a root
        of a gauss around 128: up to 4000 G.
        """
        n = self.cell_grid[0]
        blocks = row.reshape(n, self.size // n, n, self.size // n)
        means = np.stack([blocks.mean(axis=(1, 3)), np.abs(blocks).mean(axis=(1, 3))], axis=2)
        steps = 128 + np.rint(2 * np.copysign(np.sqrt(np.abs(means)), means))
        return np.clip(steps, 0, 255).astype(np.uint8)
