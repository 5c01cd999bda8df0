"""Image descriptors: from pixels to a fixed number of counts."""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._machine_code import machine_code
from fasthash._parallel import map_jobs
from fasthash._validation import check_choice, check_int, check_threads
from fasthash.errors import ArgumentError

# Pixels whose bins are counted at a time: the bytes of a vector register.
LANES = 32
# With more bins than this, comparing each pixel with each bin costs more than scattering.
FEW_BINS = 64
# Rows of a band, the smallest share of work for a thread: less would not pay for handing it over.
_BAND = 64


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
        counts = np.zeros((n, self.rows, self.cols, self.bins), np.uint32)
        if stack.size == 0:
            return counts.reshape(n, self.size)
        count_rows = self._counter(height, width, np.asarray(images).dtype)
        bands = [(i, y, min(y + _BAND, height)) for i in range(n) for y in range(0, height, _BAND)]
        threads = min(check_threads(num_threads), len(bands))
        waiting = iter(bands)

        def count_bands(thread: int) -> NDArray[np.uint32]:
            # Every thread counts into an array of its own, and takes the next band when it has done one: a core that
            # is slow, or late, takes fewer.
            own = counts if thread == 0 else np.zeros_like(counts)
            for i, first, last in waiting:
                count_rows(stack[i], first, last, own[i])
            return own

        for own in map_jobs(count_bands, range(threads), threads)[1:]:
            counts += own
        return counts.reshape(n, self.size)

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

    def _counter(self, height: int, width: int, dtype: np.dtype[Any]) -> Callable[..., None]:
        """The kernel for images of one size and type, as ``count_rows(image, first_row, last_row, counts)``."""
        # numpy.histogram rounds its edges to the type of the data, so they are taken from the data's own type.
        try:
            with np.errstate(over="ignore"):
                edges = np.histogram_bin_edges(np.empty(0, dtype), self.bins, self.value_range)
        except ValueError:
            raise ArgumentError(f"images: {dtype} cannot tell {self.bins} bins of {self.value_range} apart") from None
        real = _real_type(dtype)
        edges = np.ascontiguousarray(edges, dtype=real)
        low, high = (edges[0], edges[-1]) if self.outside == "drop" else (-np.inf, np.inf)
        row_edges = np.linspace(0, height, self.rows + 1).astype(np.int64)
        col_edges = np.linspace(0, width, self.cols + 1).astype(np.int64)
        few_bins = self.bins <= FEW_BINS
        kernel = _kernel(real, few_bins, _is_even(edges))
        # Asking an array for its address takes as long as a row of pixels: once is enough. These keep the arrays alive.
        rows_at, cols_at, edges_at = (a.ctypes.data_as(ctypes.c_void_p) for a in (row_edges, col_edges, edges))

        def count_rows(image: NDArray[Any], first: int, last: int, counts: NDArray[np.uint32]) -> None:
            numbers: NDArray[Any] = np.empty(width + LANES, np.uint8 if few_bins else np.uint16)
            kernel(
                image.ctypes.data, height, width, first, last, rows_at, self.rows, cols_at, self.cols,
                low, high, edges_at, self.bins, numbers.ctypes.data, numbers.size, counts.ctypes.data,
            )  # fmt: skip

        return count_rows


@functools.cache
def _kernel(real: type, few_bins: bool, even: bool) -> Callable[..., None]:
    def compile_it() -> tuple[str, str]:
        from fasthash._grid import compile_grid_histogram

        return compile_grid_histogram(real, few_bins, even)

    name = f"grid-{np.dtype(real).name}-{'few' if few_bins else 'many'}-{'even' if even else 'any'}"
    at, number = ctypes.c_void_p, ctypes.c_float if real is np.float32 else ctypes.c_double
    index = ctypes.c_int64
    arguments = (
        at, index, index, index, index, at, index, at, index, number, number, at, index, at, index, at,
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
