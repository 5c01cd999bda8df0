"""Image descriptors: from pixels to a fixed number of counts."""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._bands import BAND
from fasthash._machine_code import machine_code
from fasthash._parallel import fold_jobs
from fasthash._validation import check_choice, check_int, check_threads
from fasthash.errors import ArgumentError

# Pixels whose bins are counted at a time: the bytes of a vector register.
LANES = 32
# With more bins than this, comparing each pixel with each bin costs more than scattering.
FEW_BINS = 64


class GridHistogram:
    """The Magnetic Field Grid-based Descriptor Vector: a histogram of the field strength in every cell of a grid.

    Parameters
    ----------
    rows, cols : int
        The grid; cell edges are ``numpy.linspace(0, H, rows + 1).astype(int)``, likewise for columns.
    bins : int
        Bins a cell, 1 to 65,534, equal in width over ``value_range``, as ``numpy.histogram`` makes them.
    value_range : (float, float)
        Lowest and highest value that counts, both included, in the unit of the pixels (gauss for magnetograms).
    outside : "drop" or "clip"
        Values beyond the range count nowhere, or in the first and last bin. NaN never counts.

    The defaults are those of Grycuk and Scherer, section 2.2: 5 x 5 cells, 16 bins, 400 values.
    """

    def __init__(
        self,
        rows: int = 5,
        cols: int = 5,
        bins: int = 16,
        value_range: tuple[float, float] = (-1000.0, 1000.0),
        outside: str = "drop",
    ) -> None:
        self.rows = check_int("rows", rows, 1)
        self.cols = check_int("cols", cols, 1)
        self.bins = check_int("bins", bins, 1, 65_534)
        try:
            low, high = (float(value) for value in value_range)
        except (TypeError, ValueError):
            raise ArgumentError(f"value_range: expected two numbers, got {value_range!r}") from None
        if not (np.isfinite([low, high]).all() and low < high):
            raise ArgumentError(f"value_range: expected finite low < high, got ({low}, {high})")
        self.value_range = (low, high)
        self.outside = check_choice("outside", outside, ("drop", "clip"))

    @property
    def size(self) -> int:
        """Values of one descriptor: rows * cols * bins."""
        return self.rows * self.cols * self.bins

    def __repr__(self) -> str:
        return (
            f"GridHistogram(rows={self.rows}, cols={self.cols}, bins={self.bins}, "
            f"value_range={self.value_range}, outside={self.outside!r})"
        )

    def transform(self, images: Any, num_threads: int = -1) -> NDArray[np.uint32]:
        """Count the pixels of each cell and bin.

        Parameters
        ----------
        images : array of shape (n, H, W), or (H, W) for one image
            Real numbers of any size and byte order. float32, C-contiguous, is used as it lies.
        num_threads : int
            Threads over images and over bands of rows; -1 for every core.

        Returns
        -------
        counts : uint32 array of shape (n, rows * cols * bins)
            Cell by cell, row by row: exactly what ``numpy.histogram(cell, bins, value_range)`` counts.

        Raises
        ------
        ArgumentError
            Where ``images`` is not a real array of two or three dimensions.
        """
        stack = self._as_stack(images)
        n, height, width = stack.shape
        counts = np.zeros((n, self.size), np.uint32)
        if stack.size == 0:
            return counts
        count_rows = self.counter((height, width), np.asarray(images).dtype)
        bands = [(i, y) for i in range(n) for y in range(0, height, BAND)]

        def count_band(band: tuple[int, int]) -> tuple[int, NDArray[np.uint32]]:
            i, first = band
            return i, count_rows(stack[i, first : first + BAND], first)

        def add(part: tuple[int, NDArray[np.uint32]]) -> None:
            counts[part[0]] += part[1]

        fold_jobs(count_band, bands, add, check_threads(num_threads))
        return counts

    def _as_stack(self, images: Any) -> NDArray[Any]:
        if np.ma.isMaskedArray(images):
            raise ArgumentError(
                "images: a masked array; fill it with NaN, which never counts: images.filled(numpy.nan)"
            )
        array = np.asarray(images)
        if array.dtype.kind not in "fiu":
            raise ArgumentError(f"images: expected real numbers, got dtype {array.dtype}")
        if array.dtype.itemsize > 8:
            raise ArgumentError(f"images: expected at most 64 bits a pixel, got dtype {array.dtype}")
        if array.ndim == 2:
            array = array[np.newaxis]
        if array.ndim != 3:
            raise ArgumentError(f"images: expected shape (n, H, W) or (H, W), got {array.shape}")
        return np.ascontiguousarray(array, dtype=_real_type(array.dtype))

    def counter(
        self,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        spans: NDArray[np.int64] | None = None,
        quarter_turns: int = 0,
    ) -> Callable[[NDArray[Any], int], NDArray[np.uint32]]:
        """The descriptor of an image as a sum over its rows, some of them at a time, on any number of threads.

        Parameters
        ----------
        shape : (H, W)
            Of the image.
        dtype : numpy.dtype
            Of its pixels; the edges of the bins are rounded to it.
        spans : int64 array (2, H), optional
            In each row, the first column that counts, and that after the last.
        quarter_turns : int
            Count as if the image had been turned by ``numpy.rot90(image, quarter_turns)``.

        Returns
        -------
        count_rows : callable(rows, first) -> uint32 array (rows * cols * bins,)
            ``rows``: array (n, W) of the image's rows from ``first`` on, C-contiguous, float32 where dtype is float32
            or float16, else float64. Their sum over all rows of an image is what `transform` gives.
        """
        height, width = shape
        # numpy.histogram rounds its edges to the type of the data, so they are taken from the data's own type.
        try:
            with np.errstate(over="ignore"):
                edges = np.histogram_bin_edges(np.empty(0, dtype), self.bins, self.value_range)
        except ValueError:
            raise ArgumentError(f"images: {dtype} cannot tell {self.bins} bins of {self.value_range} apart") from None
        real = _real_type(dtype)
        edges = np.ascontiguousarray(edges, dtype=real)
        low, high = (edges[0], edges[-1]) if self.outside == "drop" else (-np.inf, np.inf)
        row_edges, col_edges = self._cell_edges(height, width, quarter_turns % 4)
        grid = len(row_edges) - 1, len(col_edges) - 1
        if spans is None:
            spans = np.repeat([[0], [width]], height, axis=1)
        few_bins = self.bins <= FEW_BINS
        kernel = _kernel(real, few_bins, _is_even(edges))
        # Asking an array for its address takes as long as a row of pixels: once is enough. These keep the arrays alive.
        rows_at, cols_at, edges_at = (a.ctypes.data_as(ctypes.c_void_p) for a in (row_edges, col_edges, edges))

        def count_rows(rows: NDArray[Any], first: int) -> NDArray[np.uint32]:
            counts = np.zeros((*grid, self.bins), np.uint32)
            numbers: NDArray[Any] = np.empty(width + LANES, np.uint8 if few_bins else np.uint16)
            own = np.ascontiguousarray(spans[:, first : first + len(rows)], np.int64)
            kernel(
                rows.ctypes.data, width, first, first + len(rows), own.ctypes.data, rows_at, grid[0], cols_at, grid[1],
                low, high, edges_at, self.bins, numbers.ctypes.data, numbers.size, counts.ctypes.data,
            )  # fmt: skip
            return np.rot90(counts, quarter_turns).ravel()

        return count_rows

    def _cell_edges(self, height: int, width: int, turns: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Edges of the cells along rows and columns of an image that is to be turned a quarter so many times."""
        turned = (height, width) if turns % 2 == 0 else (width, height)
        rows, cols = (
            np.linspace(0, length, parts + 1).astype(np.int64)
            for length, parts in zip(turned, (self.rows, self.cols), strict=True)
        )
        rows_back, cols_back = ((edges[-1] - edges)[::-1].copy() for edges in (rows, cols))
        return [(rows, cols), (cols, rows_back), (rows_back, cols_back), (cols_back, rows)][turns]


@functools.cache
def _kernel(real: type, few_bins: bool, even: bool) -> Callable[..., None]:
    def compile_it() -> tuple[str, str]:
        from fasthash._grid import compile_grid_histogram

        return compile_grid_histogram(real, few_bins, even)

    name = f"grid-{np.dtype(real).name}-{'few' if few_bins else 'many'}-{'even' if even else 'any'}"
    at, number = ctypes.c_void_p, ctypes.c_float if real is np.float32 else ctypes.c_double
    index = ctypes.c_int64
    arguments = (
        at, index, index, index, at, at, index, at, index, number, number, at, index, at, index, at,
    )  # fmt: skip
    return machine_code(name, Path(__file__).with_name("_grid.py"), compile_it, arguments)


def _real_type(dtype: np.dtype[Any]) -> Any:
    """The type pixels are compared in: float32 for float32 and float16, else float64, as in numpy.histogram."""
    return np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64


def _is_even(edges: NDArray[Any]) -> bool:
    """Whether ``edges[j] == (j - shift) * width`` holds to the last bit for a whole number ``shift``."""
    middle = (edges.size - 1) // 2
    width = edges[middle + 1] - edges[middle]
    shift = -edges[0] / width
    steps = np.arange(edges.size, dtype=edges.dtype) - shift
    return bool(shift == np.rint(shift) and np.array_equal(steps * width, edges))
