"""Slow oracles in plain NumPy and Python, each short enough to trust on sight."""

from itertools import pairwise

import numpy as np


def window_precisions(distances, times, window, exclude_within=0, depth=100):
    """Grycuk and Scherer, section 3: of every query its row, precision, SI, chance, and precision at 1 … depth.

    ``distances`` (n, n); ``times``, ``window`` and ``exclude_within`` are plain numbers in one unit.
    """
    judged = []
    for query, time in enumerate(times):
        allowed = [
            row
            for row, other in enumerate(times)
            if row != query and (exclude_within == 0 or abs(other - time) > exclude_within)
        ]
        similar = {row for row in allowed if abs(times[row] - time) <= window / 2}
        if similar:
            ranked = sorted(allowed, key=lambda row: (distances[query][row], row))
            at = [len(similar.intersection(ranked[:k])) / min(k, len(ranked)) for k in range(1, depth + 1)]
            precision = len(similar.intersection(ranked[: len(similar)])) / len(similar)
            judged.append((query, precision, len(similar), len(similar) / len(allowed), at))
    return judged


def hamming_distances(queries, codes):
    """Bits that differ, (n_queries, n)."""
    return np.unpackbits(queries[:, np.newaxis] ^ codes, axis=2).sum(axis=2).astype(np.int32)


def hamming_knn(queries, codes, k):
    """The k nearest by (distance, index): a stable sort keeps ties in order of index."""
    distances = hamming_distances(queries, codes)
    indices = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, indices, axis=1), indices


def hamming_range(queries, codes, radius):
    """A list of (distances, indices), one for each query: all within the radius, by (distance, index)."""
    sorted_hits = zip(*hamming_knn(queries, codes, len(codes)), strict=True)
    return [(distances[distances <= radius], indices[distances <= radius]) for distances, indices in sorted_hits]


def vector_distances(queries, vectors, metric):
    """Of every query to every vector, float32 (n_queries, n): l2, or 1 - cosine as half the squared chord."""
    points, others = queries.astype(np.float64), vectors.astype(np.float64)
    if metric == "l2":
        rows = [np.sqrt(_squares(others - point)) for point in points]
    else:
        lengths, other_lengths = np.sqrt(_squares(points)), np.sqrt(_squares(others))
        rows = []
        for point, length in zip(points, lengths, strict=True):
            with np.errstate(invalid="ignore"):
                chords = _squares(others / other_lengths[:, np.newaxis] - point / length)
            row = np.where(chords < 2e-24, 0.0, chords / 2)  # less is the rounding of the divisions
            rows.append(np.where((length == 0) | (other_lengths == 0), 1.0, row))
    return np.array(rows).reshape(len(queries), len(vectors)).astype(np.float32)


def _squares(points):
    return np.einsum("ij,ij->i", points, points)


def knn(queries, vectors, k, metric):
    """Exact k nearest neighbours, ties by index: sort everything."""
    distances = vector_distances(queries, vectors, metric)
    order = np.lexsort((np.broadcast_to(np.arange(len(vectors)), distances.shape), distances))[:, :k]
    return np.take_along_axis(distances, order, axis=1), order


def grid_histogram(image, grid):
    """The descriptor of one image (H, W) by numpy.histogram: uint32 (rows * cols * bins,)."""
    rows = np.linspace(0, image.shape[0], grid.rows + 1).astype(int)
    cols = np.linspace(0, image.shape[1], grid.cols + 1).astype(int)
    values = image if grid.outside == "drop" else np.clip(image, *grid.value_range)
    cells = [values[a:b, c:d] for a, b in pairwise(rows) for c, d in pairwise(cols)]
    return np.concatenate([np.histogram(cell, grid.bins, grid.value_range)[0] for cell in cells]).astype(np.uint32)
