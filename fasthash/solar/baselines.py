"""What others have described full-disk solar images by, to compare with: from one image to a fixed number of values.

Banda and Angryk's ten image parameters and their descriptors of regions, Grycuk and Scherer's grid-based concise hash,
their histograms, and a thumbnail. All see the same view of the Sun (`view`). Where a paper leaves something open, or is
about images of another kind, the docstring says what was chosen here.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._validation import check_int
from fasthash.descriptor import GridHistogram
from fasthash.errors import ReadError
from fasthash.io import Image, resize
from fasthash.solar.magnetogram import MagnetogramHistogram, disk_of_picture, flatten, orient, to_gauss
from fasthash.solar.regions import find_regions

PARAMETERS = (
    "entropy",
    "mean",
    "standard deviation",
    "fractal dimension",
    "skewness",
    "kurtosis",
    "uniformity",
    "relative smoothness",
    "Tamura contrast",
    "Tamura directionality",
)
GRID = 8  # cells a side, as Banda and Angryk 2010
# G that are white in cells: the best of 100, 250 and 1000 (precisions of .83, .80 and .79 on a simulated series). In
# regions, most of whose field is stronger, it is MFGDV's range.
CELL_WHITE, REGION_WHITE = 100.0, 1000.0
REGIONS = 16  # of a frame, the strongest
WORDS = 64  # of the codebook
HASH_GRID = 10

_LEVELS = 256  # of grey
_DIRECTIONS = 16
_EDGE = 12.0  # grey levels of gradient (Tamura et al. 1978, section III-C)
_MFGDV = MagnetogramHistogram(GridHistogram())
_ACTIVE = 40.0  # G; field that strong is active, as in `fasthash.solar.regions`


def view(image: Image) -> NDArray[np.float32]:
    """North up, in gauss, NaN off the disk, float32 (H, W).

    Pictures have black to white taken as -1000 to 1000 G, and, where their disk is found, are flattened as encoders of
    field maps see them.
    """
    if image.full_scale is not None:
        pixels = to_gauss(image)
        disk = disk_of_picture(pixels)
        return pixels if disk is None else flatten(pixels, disk)[0]
    return orient(image)


def thumbnail(image: Image, size: int = 8) -> NDArray[np.float32]:
    """The view at ``size`` x ``size`` pixels, float32 (size * size,); what is off the disk counts as 0 G."""
    check_int("size", size, 1, 1024)
    pixels = np.nan_to_num(view(image))
    height, width = pixels.shape
    return resize(pixels, (size, size), (0.0, 0.0, float(width), float(height))).ravel()


def histogram(image: Image) -> NDArray[np.float32]:
    """MFGDV of the view: as the front end of `solar-paper`, but for pictures, of which that sees the bare grey."""
    return _MFGDV.describe(Image(view(image), image.path))


# ---- ten image parameters ------------------------------------------------------------------------------------------


def grid_parameters(image: Image, grid: int = GRID) -> NDArray[np.float32]:
    """Banda and Angryk's ten PARAMETERS in each cell of a grid, float32 (grid * grid * 10,), cell by cell.

    Banda and Angryk 2010, "An experimental evaluation of popular image parameters for monochromatic solar image
    categorization" (FLAIRS-23), with its 8 x 8 cells. (Of 4096 x 4096 pixels they later took 64 x 64 cells; of a frame
    of 256 pixels such a cell would have 16 pixels, too few for a texture.) Edge rows and columns that do not fill a
    cell are left out. Raises ReadError for an image too small for cells of 4 x 4 pixels.
    """
    pixels = view(image)
    side = [length // check_int("grid", grid, 1) for length in pixels.shape]
    if min(side) < 4:
        size = f"{pixels.shape[1]} x {pixels.shape[0]} pixels"
        raise ReadError(f"{image.path or 'image'}: {size}, too few for {grid} x {grid} cells of 4 x 4")
    whole = pixels[: grid * side[0], : grid * side[1]].reshape(grid, side[0], grid, side[1])
    # A row of cells at a time: of an HMI frame they would fill gigabytes together.
    return np.concatenate([image_parameters(row.swapaxes(0, 1), CELL_WHITE) for row in whole]).ravel()


def image_parameters(cells: NDArray[np.float32], white: float) -> NDArray[np.float32]:
    """The ten PARAMETERS of each cell: float32 (n, height, width), gauss, to float32 (n, 10).

    They are of 8-bit grey levels: 0 to 255 are -``white`` to ``white`` G, NaN the grey of no field. With p the shares
    of the levels z, and mu and sigma their mean and standard deviation (Ahmadzadeh et al. 2019, ApJS 243, 18, table 1):
    entropy -sum p log2 p; uniformity sum p^2; skewness and kurtosis the third and fourth moment over sigma^3 and
    sigma^4; relative smoothness 1 - 1 / (1 + sigma^2), sigma as a share of the range as in the textbook it is from;
    Tamura contrast sigma / kurtosis^(1/4). `_fractal_dimension` and `_directionality` have two of their own. What is
    divided by a sigma of 0 is 0.
    """
    scaled = (np.nan_to_num(cells) + white) * ((_LEVELS - 1) / (2 * white))
    grey = np.clip(np.rint(scaled), 0, _LEVELS - 1)
    flat = grey.reshape(len(grey), -1).astype(np.float64)
    number = np.arange(len(flat))[:, None] * _LEVELS
    counts = np.bincount((flat + number).astype(np.int64).ravel(), minlength=len(flat) * _LEVELS)
    share = counts.reshape(-1, _LEVELS) / flat.shape[1]
    mean, sigma = flat.mean(axis=1), flat.std(axis=1)
    centred = (flat - mean[:, None]) / np.where(sigma > 0, sigma, 1)[:, None]
    kurtosis = (centred**4).mean(axis=1)
    contrast = np.where(sigma > 0, sigma / np.maximum(kurtosis, 1) ** 0.25, 0)  # no kurtosis is below 1
    down, across = np.gradient(grey.astype(np.float64), axis=(1, 2))
    strength = np.hypot(across, down)
    values = (
        -(share * np.log2(np.where(share > 0, share, 1))).sum(axis=1),
        mean,
        sigma,
        _fractal_dimension(strength > _EDGE),
        (centred**3).mean(axis=1),
        kurtosis,
        (share**2).sum(axis=1),
        1 - 1 / (1 + (sigma / (_LEVELS - 1)) ** 2),
        contrast,
        _directionality(across, down, strength),
    )
    return np.stack(values, axis=1).astype(np.float32)


def _fractal_dimension(edges: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Box counting: the slope of log N against -log size over boxes of 1, 2, 4 … pixels, N holding an edge; 0 for none.

    Which binary image is counted the paper of 2010 leaves open; here, as in 2019, edges, by their gradient.
    """
    logs, boxes, size = [], edges, 1
    while True:
        logs.append(np.log(np.maximum(boxes.sum(axis=(1, 2)), 1)))
        pad = [(0, length % 2) for length in boxes.shape[1:]]
        if min(boxes.shape[1:]) < 4:
            break
        boxes = np.pad(boxes, [(0, 0), *pad])
        boxes = boxes[:, ::2] | boxes[:, 1::2]
        boxes = boxes[:, :, ::2] | boxes[:, :, 1::2]
        size *= 2
    if len(logs) < 2:
        return np.zeros(len(edges))
    steps = -np.log(2) * np.arange(len(logs))
    steps -= steps.mean()
    return np.asarray(steps @ np.stack(logs) / (steps @ steps))


def _directionality(
    across: NDArray[np.float64], down: NDArray[np.float64], strength: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Tamura's directionality: 1 where all edges run the same way, 0 without edges.

    Tamura, Mori and Yamawaki 1978, section III-C: from the histogram of directions, in 16 bins, of edges stronger than
    12 levels; 1 less its normalised second moment about the peak. Of several peaks only the highest is looked at, as
    valleys between peaks mean little in histograms of so few edges.
    """
    n = len(across)
    angle = np.floor(np.mod(np.arctan2(down, across), np.pi) / np.pi * _DIRECTIONS).astype(np.int64) % _DIRECTIONS
    cell, row, column = np.nonzero(strength > _EDGE)
    counts = np.bincount(cell * _DIRECTIONS + angle[cell, row, column], minlength=n * _DIRECTIONS).reshape(n, -1)
    total = counts.sum(axis=1)
    away = np.abs(np.arange(_DIRECTIONS) - counts.argmax(axis=1)[:, None])
    away = np.minimum(away, _DIRECTIONS - away) / (_DIRECTIONS / 2)
    spread = (counts * away**2).sum(axis=1) / np.maximum(total, 1)
    return np.where(total > 0, 1 - spread, 0)


# ---- regions -------------------------------------------------------------------------------------------------------


def region_signatures(image: Image, count: int = REGIONS) -> NDArray[np.float32]:
    """A signature of ten values for each magnetic region, float32 (count, 10): strongest first, NaN beyond the last.

    Banda, Liu and Angryk 2014, "Region-based querying of solar data using descriptor signatures" (ICDMW): the ten
    PARAMETERS of the box around a region. Their regions are events that were reported; here `find_regions` finds them.
    Raises ReadError for images whose header does not tell the disk.
    """
    from scipy import ndimage

    table = find_regions(image)
    found = np.full((count, len(PARAMETERS)), np.nan, np.float32)
    for i, box in enumerate(ndimage.find_objects(table.labels)[:count]):
        # With a margin of one cell, or the narrowest would have no gradient.
        rows, columns = (slice(max(0, a.start - 1) * table.factor, (a.stop + 1) * table.factor) for a in box)
        found[i] = image_parameters(table.image.pixels[np.newaxis, rows, columns], REGION_WHITE)[0]
    return found


def region_words(signatures: NDArray[np.float32], words: int = WORDS, seed: int = 0) -> Callable[..., Any]:
    """From the signatures of an archive (n, count, 10), a function from such signatures to histograms (m, words).

    A bag of words, by which sets of regions of any size can be compared (Banda and Angryk 2015, "Regional content-based
    image retrieval for solar images: traditional versus modern methods", Astronomy and Computing 13): each signature
    counts for the nearest of so many k-means centres of all, the values of unit variance. Square roots of the counts,
    so that their L2 distance is that of Hellinger.
    """
    from scipy.cluster.vq import kmeans2, vq

    known = signatures[np.isfinite(signatures[..., 0])].astype(np.float64)
    if len(known) < 2:
        raise ReadError("no magnetic regions in these images")
    mean, spread = known.mean(axis=0), np.maximum(known.std(axis=0), 1e-9)
    words = min(words, len(known))
    scaled = (known - mean) / spread
    first = np.random.default_rng(seed).choice(len(known), words, replace=False)
    centres, _ = kmeans2(scaled, scaled[first], minit="matrix")

    def to_histograms(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        image, region = np.nonzero(np.isfinite(rows[..., 0]))
        counts = np.zeros((len(rows), words), np.float32)
        if len(image):
            word, _ = vq((rows[image, region] - mean) / spread, centres)
            np.add.at(counts, (image, word), 1)
        return np.sqrt(counts)

    return to_histograms


# ---- grid-based concise hash ---------------------------------------------------------------------------------------


def grid_hash(image: Image, grid: int = HASH_GRID) -> NDArray[np.float32]:
    """The grid-based concise hash: how much of each cell is active, float32 (grid * grid,).

    Grycuk and Scherer 2021, "Grid-based concise hash for solar images" (ICCS 2021): the image is blurred, active
    regions are what exceeds a threshold, cleaned by erosion and dilation, and a grid is laid over them. Their images
    are of the corona; here the unsigned field of 40 G is active after a Gaussian of a 128th of the width. How many
    cells they took was not at hand: 10 x 10.
    """
    from scipy import ndimage

    strength = np.abs(np.nan_to_num(view(image)))
    active = ndimage.gaussian_filter(strength, strength.shape[1] / 128) > _ACTIVE
    active = ndimage.binary_opening(active, np.ones((3, 3)))
    height, width = active.shape
    if min(height, width) < grid:
        raise ReadError(f"{image.path or 'image'}: {width} x {height} pixels for {grid} x {grid} cells")
    edges = [np.linspace(0, length, grid + 1).astype(int)[:-1] for length in active.shape]
    counts = np.add.reduceat(np.add.reduceat(active.astype(np.float32), edges[0], axis=0), edges[1], axis=1)
    return (counts * (grid * grid / active.size)).ravel()
