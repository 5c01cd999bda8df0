"""What a solar encoder sees of a full-disk magnetogram: north up, in gauss, and nothing but the disk."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash.descriptor import GridHistogram
from fasthash.errors import ReadError
from fasthash.io import Image

# Pixels: a disk whose radius or centre is said to be beyond this is a mistake of its header.
_FARTHEST = 1e6
_ARCSECONDS = {"arcmin": 60.0, "deg": 3600.0, "rad": 3600 * math.degrees(1)}  # in other units of CDELT1

# A picture's disk is round where it and its circle have at least this share of their union in common (a square and its
# best circle have .83), and no spot where its radius is at least this share of the picture's shorter side.
_ROUND = 0.95
_SMALLEST = 0.2
# Rings of equal width over which a picture is flattened. The outermost is left out: it holds the pixels that are half
# sky, and the steepest fall of the limb.
_RINGS = 40
_LEFT_OUT = 1
# Of larger pictures, every second, third ... row and column tell as much about the disk and its rings.
_ENOUGH = 1024


@dataclass(frozen=True)
class Disk:
    """Where the solar disk lies in an image: centre (zero-based pixel, x then y), radius in pixels, rotation.

    ``rotation`` (degrees) is CROTA2: how far solar north is turned from the upward direction of the rows.
    """

    x: float
    y: float
    radius: float
    rotation: float


def header_number(header: Mapping[str, Any], *keys: str) -> float | None:
    """The first of these FITS cards that holds a finite number; None where none does."""
    for key in keys:
        try:
            value = float(header[key])
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(value):
            return value
    return None


def disk_from_header(header: Mapping[str, Any]) -> Disk | None:
    """The disk as FITS cards tell it (Thompson 2006, A&A 449, 791); None where they do not."""

    number = functools.partial(header_number, header)
    x, y, scale = number("CRPIX1"), number("CRPIX2"), number("CDELT1")
    angular = number("RSUN_OBS", "RSUN", "SOLAR_R")  # arcseconds
    unit = _ARCSECONDS.get(str(header.get("CUNIT1", "")).strip().lower(), 1.0)
    radius = angular / abs(scale * unit) if angular and scale else number("R_SUN")
    if x is None or y is None or radius is None:
        return None
    # The reference pixel is the disk's centre where its coordinates are (0, 0).
    if scale:
        x -= (number("CRVAL1") or 0.0) / scale
        y -= (number("CRVAL2") or 0.0) / (number("CDELT2") or scale)
    rotation = number("CROTA2", "CROTA")
    if rotation is None:
        rotation = math.degrees(math.atan2(number("PC2_1") or 0.0, number("PC1_1") or 1.0))
    if not 0 < radius < _FARTHEST or not max(abs(x), abs(y)) < _FARTHEST:
        return None
    return Disk(x - 1.0, y - 1.0, radius, rotation)


def hmi_gauss(header: Mapping[str, Any]) -> float:
    """The factor that brings an instrument's field to HMI's: MDI reads 1.40 times as much (Liu et al. 2012).

    Solar Physics 279, 295; the ratio of calibrated line-of-sight full-disk magnetograms. 1 for any other instrument.
    """
    names = {str(header.get(key, "")).strip().upper() for key in ("INSTRUME", "TELESCOP")}
    return 1 / 1.40 if names & {"MDI", "SOHO/MDI"} else 1.0


def to_gauss(image: Image, grey_range: tuple[float, float] = (-1000.0, 1000.0)) -> NDArray[np.float32]:
    """The image's pixels in gauss, rows running up as in FITS.

    Pictures, which carry no unit, have their grey levels, black to white, taken as ``grey_range``.
    """
    if image.full_scale is None:
        return image.pixels
    low, high = grey_range
    grey = image.pixels[::-1] * np.float32((high - low) / image.full_scale) + np.float32(low)
    return np.ascontiguousarray(grey)


def orient(image: Image, grey_range: tuple[float, float] = (-1000.0, 1000.0)) -> NDArray[np.float32]:
    """The image's pixels with solar north towards the last row, in gauss, NaN off the disk.

    Turned by the multiple of 90 degrees that is nearest to the header's rotation; pictures as `to_gauss` takes them.
    """
    pixels = to_gauss(image, grey_range)
    disk = None if image.full_scale is not None else disk_from_header(image.header)
    if disk is None:
        return pixels
    return np.ascontiguousarray(np.rot90(mask_sky(pixels, disk), quarter_turns(disk)))


def quarter_turns(disk: Disk) -> int:
    """How often `numpy.rot90` has to turn an image until solar north is nearest to the last row."""
    # At CROTA2 = 90 solar north lies towards the last column, whence one turn back brings it to the last row.
    return -round(disk.rotation / 90.0)


def chords(shape: tuple[int, int], disk: Disk) -> NDArray[np.int64]:
    """Where the disk lies in each row of an image: int64 array (2, H), the first column, and that after the last.

    A pixel is on the disk where its centre is; in a row that misses the disk both columns are the same.
    """
    height, width = shape
    up = np.arange(height) - disk.y
    half = np.sqrt(np.maximum(0.0, disk.radius**2 - up * up))
    spans = np.clip([np.ceil(disk.x - half), np.floor(disk.x + half) + 1], 0, width).astype(np.int64)
    return np.where((np.abs(up) <= disk.radius) & (spans[0] < spans[1]), spans, 0)


def mask_sky(pixels: NDArray[np.float32], disk: Disk) -> NDArray[np.float32]:
    """A copy with NaN wherever a pixel's centre lies off the disk."""
    height, width = pixels.shape
    masked = np.full_like(pixels, np.nan)
    for y, (start, stop) in enumerate(chords((height, width), disk).T.tolist()):
        masked[y, start:stop] = pixels[y, start:stop]
    return masked


def disk_of_picture(pixels: NDArray[np.float32]) -> Disk | None:
    """The solar disk that stands out from the sky of a picture, taken to be north up; None where no round one does.

    ``pixels``: (H, W), on any scale. The sky is the level of the picture's border, or NaN all along it; the disk is the
    largest piece that differs from it. So text in a corner is not of it; spots at the limb, and text that touches it,
    are left out when a circle is laid through its outline.
    """
    step = _step(pixels)
    piece = _largest_piece(pixels[::step, ::step])
    if piece is None:
        return None
    disk = _circle(*_outline(piece))
    if disk is None or disk.radius < _SMALLEST * min(piece.shape):
        return None
    within = distance_in_radii(piece.shape, disk) <= 1
    if np.count_nonzero(piece & within) < _ROUND * np.count_nonzero(piece | within):
        return None
    return Disk(disk.x * step, disk.y * step, disk.radius * step, 0.0)


def _step(pixels: NDArray[np.float32]) -> int:
    return max(1, min(pixels.shape) // _ENOUGH)


def distance_in_radii(shape: tuple[int, ...], disk: Disk) -> NDArray[np.float32]:
    """Distance of every pixel from the disk's centre: float32 array of ``shape``."""
    centre = zip(shape, (disk.y, disk.x), strict=True)
    y, x = ((np.arange(length, dtype=np.float32) - middle) / disk.radius for length, middle in centre)
    return np.asarray(np.hypot(y[:, None], x), np.float32)


def _largest_piece(pixels: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """The largest connected piece of what stands out from the level of the border."""
    from scipy import ndimage

    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    known = border[np.isfinite(border)]
    departure = np.abs(pixels - np.median(known)) if len(known) else np.isfinite(pixels).astype(np.float32)
    np.nan_to_num(departure, copy=False)
    stands_out = departure > 0.1 * departure.max()
    if not stands_out.any():
        return None
    # A quarter of what the disk departs by is above the ringing of JPEG, and below what the limb darkens to.
    pieces, _ = ndimage.label(departure > 0.25 * np.median(departure[stands_out]))
    return np.asarray(pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:]))


def _outline(piece: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where rows, then columns, of the picture enter and leave the piece: x and y; the picture's own edges left out."""
    points = []
    for mask in (piece, piece.T):
        lines = np.flatnonzero(mask.any(axis=1))
        enter, leave = mask[lines].argmax(axis=1), mask.shape[1] - mask[lines, ::-1].argmax(axis=1)
        along, across = np.concatenate([enter, leave]), np.concatenate([lines, lines])
        inside = (along > 0) & (along < mask.shape[1])
        points.append((along[inside] - 0.5, across[inside].astype(np.float64)))
    (x, y), (y_too, x_too) = points
    return np.concatenate([x, x_too]), np.concatenate([y, y_too])


def _circle(x: NDArray[np.float64], y: NDArray[np.float64]) -> Disk | None:
    """The circle through most of the points, by least squares (Kasa 1976); those far off it are left out in turn."""
    keep = np.ones(len(x), bool)
    for _ in range(10):
        if np.count_nonzero(keep) < 3:
            return None
        equations = np.column_stack([x, y, np.ones(len(x))])
        a, b, c = np.linalg.lstsq(equations[keep], (x * x + y * y)[keep], rcond=None)[0] / (2, 2, 1)
        radius = math.sqrt(max(c + a * a + b * b, 0.0))
        off = np.abs(np.hypot(x - a, y - b) - radius)
        keep = off <= max(1.0, 2.5 * np.median(off))
    return Disk(float(a), float(b), radius, 0.0)


def flatten(pixels: NDArray[np.float32], disk: Disk) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Each pixel's departure from the quiet Sun as far from the centre, and the quiet Sun itself, ring by ring.

    float32 arrays (H, W), NaN at the limb and off the disk, and (39,) from the centre outwards, NaN where a ring holds
    no pixel. The quiet Sun is the median of a ring: in a magnetogram the grey of no field, in white light the limb
    darkening.
    """
    ring = np.minimum(distance_in_radii(pixels.shape, disk) * _RINGS, _RINGS).astype(np.uint8)
    step = _step(pixels)
    sample, its_ring = pixels[::step, ::step], ring[::step, ::step]
    quiet = np.full(_RINGS + 1, np.nan, np.float32)
    for i in range(_RINGS - _LEFT_OUT):
        values = sample[(its_ring == i) & np.isfinite(sample)]
        if len(values):
            quiet[i] = np.median(values)
    return np.asarray(pixels - quiet[ring]), quiet[: _RINGS - _LEFT_OUT]


class MagnetogramHistogram:
    """The front end of encoders of kind "magnetogram-histogram": MFGDV as shares of each cell's pixels.

    Shares make frames of different sizes comparable; counts alone would not be.
    """

    def __init__(self, grid: GridHistogram) -> None:
        self.grid = grid

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "MagnetogramHistogram":
        """From the settings that an encoder's metadata hold: the arguments of GridHistogram."""
        values = {key: settings[key] for key in ("rows", "cols", "bins", "value_range", "outside")}
        return cls(GridHistogram(**values))

    def settings(self) -> dict[str, Any]:
        """What from_settings takes, and JSON can hold."""
        grid = self.grid
        return {
            "kind": "magnetogram-histogram",
            "rows": grid.rows,
            "cols": grid.cols,
            "bins": grid.bins,
            "value_range": list(grid.value_range),
            "outside": grid.outside,
        }

    def describe(self, image: Image, num_threads: int = 1) -> NDArray[np.float32]:
        """float32 array (rows * cols * bins,): the share of an average cell's pixels that fall into each bin."""
        name, grid = image.path or "image", self.grid
        disk = None
        if image.full_scale is None:
            disk = disk_from_header(image.header)
        else:
            image = Image(to_gauss(image, grid.value_range), image.path)
        turns = 0 if disk is None else quarter_turns(disk)
        height, width = image.shape[:: -1 if turns % 2 else 1]
        if height < grid.rows or width < grid.cols:
            raise ReadError(f"{name}: {width} x {height} pixels for {grid.cols} x {grid.rows} cells")
        spans = None if disk is None else chords(image.shape, disk)
        counts = np.zeros(grid.size, np.uint32)
        count_rows = grid.counter(image.shape, np.dtype(np.float32), spans, turns)
        image.fold_bands(count_rows, lambda part: np.add(counts, part, out=counts), num_threads)
        if not counts.any():
            raise ReadError(f"{name}: no pixel of the solar disk lies within {grid.value_range}")
        return (counts * (grid.rows * grid.cols / (height * width))).astype(np.float32)

    @property
    def cell_grid(self) -> tuple[int, int]:
        """Rows and columns of `cells`."""
        return self.grid.rows, self.grid.cols

    def cells(self, row: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The square roots of the shares, in steps of 1/200: uint8 (rows, cols, bins).

        Of roots, differences count alike whether many pixels fall into a bin or few.
        """
        steps = np.rint(200 * np.sqrt(row.reshape(*self.cell_grid, self.grid.bins)))
        return np.minimum(steps, 255).astype(np.uint8)
