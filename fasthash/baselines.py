"""Baselines of hashing that anything can be put through: PCA, random projections, iterative quantisation.

Each is fitted to the descriptors of an archive, float32 (n, d), and gives a `LinearHash`. They know no labels and no
time, so they are what a learned hash has to beat.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._validation import as_vectors, check_int
from fasthash.codes import binarize
from fasthash.errors import ArgumentError


@dataclass(frozen=True, eq=False)
class LinearHash:
    """A projection of descriptors that have had their mean taken away.

    mean : float64 (d,). projection : float64 (n_components, d).
    """

    mean: NDArray[np.float64]
    projection: NDArray[np.float64]

    def transform(self, descriptors: Any) -> NDArray[np.float32]:
        """The projected values, float32 (n, n_components), of descriptors float32 (n, d). Raises ArgumentError."""
        vectors = as_vectors("descriptors", descriptors, len(self.mean))
        return ((vectors - self.mean) @ self.projection.T).astype(np.float32)

    def binarize(self, descriptors: Any) -> NDArray[np.uint8]:
        """Their signs as codes, uint8 (n, n_bytes) in `numpy.packbits` order. Raises ArgumentError."""
        vectors = as_vectors("descriptors", descriptors, len(self.mean))
        return binarize(vectors, self.projection @ self.mean, self.projection)


def pca(descriptors: Any, n_components: int) -> LinearHash:
    """The principal components, strongest first, each with its largest entry positive.

    descriptors : float32 (n, d). n_components : at most d, and less than n. A direction in which nothing varies is 0.
    Raises ArgumentError.
    """
    vectors = _fitted(descriptors, 2)
    check_int("n_components", n_components, 1, min(len(vectors) - 1, vectors.shape[1]))
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - mean
    # Whichever of the two symmetric matrices is the smaller has the same eigenvalues.
    if len(centred) < centred.shape[1]:
        values, left = np.linalg.eigh(centred @ centred.T)
        axes = (centred.T @ left[:, ::-1][:, :n_components]).T
    else:
        values, right = np.linalg.eigh(centred.T @ centred)
        axes = right[:, ::-1][:, :n_components].T
    varies = values[::-1][:n_components] > 1e-12 * max(values[-1], np.finfo(np.float64).tiny)
    axes = np.where(varies[:, None], axes / np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-300), 0)
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return LinearHash(mean, np.where(largest < 0, -axes, axes))


def random_projection(descriptors: Any, n_bits: int, seed: int = 0) -> LinearHash:
    """Random hyperplanes through the mean: locality-sensitive hashing for angles.

    The share of bits in which two descriptors differ is, in the mean, their angle over pi (Charikar 2002, "Similarity
    estimation techniques from rounding algorithms", section 3). descriptors : float32 (n, d). Raises ArgumentError.
    """
    vectors = _fitted(descriptors, 1)
    rng = np.random.default_rng(check_int("seed", seed, 0))
    normals = rng.standard_normal((check_int("n_bits", n_bits, 1), vectors.shape[1]))
    return LinearHash(vectors.mean(axis=0, dtype=np.float64), normals)


def itq(descriptors: Any, n_bits: int, iterations: int = 50, seed: int = 0) -> LinearHash:
    """Iterative quantisation: principal components, turned until their signs lie as near to them as they can.

    Gong and Lazebnik 2011, "Iterative quantization: a Procrustean approach to learning binary codes", section 2.2;
    their 50 iterations from a random rotation. descriptors : float32 (n, d). n_bits : as n_components of `pca`.
    Raises ArgumentError.
    """
    fitted = pca(descriptors, n_bits)
    check_int("iterations", iterations, 0)
    values = fitted.transform(descriptors).astype(np.float64)
    rng = np.random.default_rng(check_int("seed", seed, 0))
    rotation = np.linalg.qr(rng.standard_normal((n_bits, n_bits)))[0]
    for _ in range(iterations):
        signs = np.where(values @ rotation > 0, 1.0, -1.0)
        left, _, right = np.linalg.svd(values.T @ signs)
        rotation = left @ right
    return LinearHash(fitted.mean, rotation.T @ fitted.projection)


def _fitted(descriptors: Any, least: int) -> NDArray[np.float32]:
    vectors = as_vectors("descriptors", descriptors)
    if len(vectors) < least or vectors.shape[1] == 0:
        raise ArgumentError(f"descriptors: expected at least {least} rows of at least 1 value, got {vectors.shape}")
    return vectors
