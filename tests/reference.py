"""Slow oracles in plain NumPy and Python, each short enough to trust on sight."""

from itertools import pairwise

import numpy as np


def window_precisions(distances, times, window, exclude_within=0, depth=100):
    """Grycuk and Scherer, section 3: of every query its row, hits, SI, frames to retrieve, and precision at 1 … depth.

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
            ks = range(1, depth + 1)
            at = [expected_hits(distances[query], allowed, similar, k) / min(k, len(allowed)) for k in ks]
            hits = expected_hits(distances[query], allowed, similar, len(similar))
            judged.append((query, hits, len(similar), len(allowed), at))
    return judged


def expected_hits(distances, allowed, similar, k):
    """How many of the k nearest of the ``allowed`` rows are ``similar``, equally near rows being in random order."""
    hits = 0.0
    for row in similar:
        nearer = sum(distances[other] < distances[row] for other in allowed)
        tied = sum(distances[other] == distances[row] for other in allowed)
        hits += min(max((k - nearer) / tied, 0), 1)
    return hits


def knn_votes(distances, labels, k):
    """The label that most of the k nearest have, by (distance, row); of several, the one that is met first."""
    nearest = [labels[row] for row in np.argsort(distances, kind="stable")[:k]]
    return max(nearest, key=nearest.count)


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
        with np.errstate(over="ignore"):
            rows = [np.sqrt(_sums_of_squares(point - others)).astype(np.float32) for point in points]
    else:
        (points, zero), (others, other_zero) = _directions(points), _directions(others)
        rows = []
        for point, is_zero in zip(points, zero, strict=True):
            chords = _sums_of_squares(point - others)
            row = np.where(chords < 2e-24, 0.0, chords / 2)  # less is the rounding of the two unit vectors
            rows.append(np.where(is_zero | other_zero, 1.0, row).astype(np.float32))
    return np.array(rows, np.float32).reshape(len(queries), len(vectors))


def _directions(points):
    """Unit vectors, and which of the points are zero."""
    sums = _sums_of_squares(points)
    return points * (1 / np.sqrt(np.where(sums == 0, 1, sums)))[:, np.newaxis], sums == 0


def _sums_of_squares(points):
    """Row by row, in the order of csrc/vectors_scan.h: eight partial sums, added up by halves, then what is left."""
    squares = points**2
    whole = squares.shape[1] // 8 * 8
    sums = np.zeros((len(points), 8))
    for start in range(0, whole, 8):
        sums += squares[:, start : start + 8]
    for half in (4, 2, 1):
        sums = sums[:, :half] + sums[:, half:]
    total = sums[:, 0]
    for rest in squares[:, whole:].T:
        total = total + rest
    return total


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


def rice_decode(stream, n, bytepix, blocksize):
    """The n integers of a Rice stream (FITS standard 4.0, section 10.4.1), modulo 2^(8 bytepix); None if damaged."""
    width, most = {1: (3, 6), 2: (4, 14), 4: (5, 25)}[bytepix]
    bits = "".join(f"{byte:08b}" for byte in stream)
    at, values = 0, []

    def take(count):
        nonlocal at
        at += count
        return int(bits[at - count : at] or "0", 2)

    last = take(8 * bytepix)
    for i in range(n):
        if i % blocksize == 0:
            split = take(width) - 1
        if split > most or at > len(bits):
            return None
        folded = 0
        if split == most:
            folded = take(8 * bytepix)
        elif split >= 0:
            one = bits.find("1", at)
            if one < 0:
                return None
            folded, at = one - at, one + 1
            folded = folded << split | take(split)
        last += -(folded + 1) // 2 if folded % 2 else folded // 2
        values.append(last % 2 ** (8 * bytepix))
    return values if -(-at // 8) == len(stream) else None
