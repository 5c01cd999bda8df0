"""What else radio galaxies have been described by, to compare with: from a cut-out to numbers.

A descriptor that no turning changes, in the spirit of COSFIRE; features of a network that has seen only ImageNet; and
the paper's triplets in eight bits, on a network small enough to be trained in minutes. Where a paper leaves something
open, or a simpler way was taken, the docstring says so.
"""

import functools
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._training import import_torch
from fasthash.encoder import Encoder
from fasthash.io import Image
from fasthash.radio import densenet
from fasthash.radio.cutout import Cutout
from fasthash.radio.dataset import CLASSES, RadioSet, balanced

# ---- in the spirit of COSFIRE --------------------------------------------------------------------------------------

FIELD = 100  # pixels of FIRST a side
# Pixels, of the surround of the difference of Gaussians; its centre has half of it. Of 2.5, 3 and 5, and of flux and
# its root, the best on valid of the published set (docs/reproduce.md), which flatters these filters there.
SIGMA, STRETCH = 3.0, "sqrt"
RADII = tuple(range(0, 45, 5))  # pixels
ANGLES = 24
PROTOTYPES = 25  # of each class
_BLUR, _BLUR_GROWTH = 0.67, 0.1  # pixels, and their growth with the radius
_FAINTEST = 0.1  # of an image's strongest response: less is no part of a prototype
_FLOOR = 0.01  # of it, in place of no response at all, so that one missing blob does not decide alone
_FIELD = Cutout(FIELD, FIELD, STRETCH)


def polar_responses(image: Image) -> NDArray[np.float32]:
    """Where an image has blobs, float32 (9, 24) in [0, 1]: at 9 RADII around its middle, in 24 directions.

    The response to a difference of Gaussians, negative ones as 0, blurred the more the farther out, over its largest
    (Ndung'u et al. 2024, "Classification of radio galaxies with trainable COSFIRE filters", arXiv 2311.11286, section
    3). COSFIRE takes the largest response near a place; here it is the weighted mean.
    """
    from scipy import ndimage

    field = _FIELD.describe(image)
    blobs = np.maximum(ndimage.gaussian_filter(field, SIGMA / 2) - ndimage.gaussian_filter(field, SIGMA), 0)
    angle, middle = np.arange(ANGLES) * (2 * np.pi / ANGLES), (FIELD - 1) / 2
    found = np.empty((len(RADII), ANGLES), np.float32)
    for i, radius in enumerate(RADII):
        near = ndimage.gaussian_filter(blobs, _BLUR + _BLUR_GROWTH * radius)
        places = middle - radius * np.sin(angle), middle + radius * np.cos(angle)
        found[i] = ndimage.map_coordinates(near, places, order=1)
    return found / max(float(found.max()), 1e-9)


def prototype_filters(
    responses: NDArray[np.float32], labels: NDArray[np.str_], count: int = PROTOTYPES, seed: int = 0
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """From polar responses (n, 9, 24) of labelled images, a function from such responses to those of filters.

    A filter is made of one image: it asks for blobs where that has them, at the peaks along each circle. Its response
    is the geometric mean of what is there, in the direction in which that is largest: so turning an image by 15
    degrees changes nothing (COSFIRE's tolerance of rotation). ``count`` images of each class are drawn at random. The
    responses of an image to all filters, float32 (m, n_filters), are brought to unit length.
    """
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(labels == label))[:count] for label in CLASSES]
    weights = np.stack([_filter(responses[row]) for row in np.concatenate(drawn)])
    spectra = np.conj(np.fft.rfft(weights, axis=2))

    def respond(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        logs = np.fft.rfft(np.log(np.maximum(rows, _FLOOR)), axis=2)
        means = np.fft.irfft(np.einsum("nra,fra->nfa", logs, spectra), ANGLES, axis=2)
        answer = np.exp(means.max(axis=2))
        return np.asarray(answer / np.linalg.norm(answer, axis=1, keepdims=True), np.float32)

    return respond


def _filter(prototype: NDArray[np.float32]) -> NDArray[np.float64]:
    """Weights of a filter's places, (9, 24), of sum 1; the middle is one place, whatever the direction."""
    along = np.maximum(np.roll(prototype, 1, axis=1), np.roll(prototype, -1, axis=1))
    asked = (prototype >= along) & (prototype > _FAINTEST)
    asked[0] = prototype[0] > _FAINTEST
    weights = asked.astype(np.float64)
    weights[0] /= ANGLES
    return weights / weights.sum()


# ---- features from ImageNet ----------------------------------------------------------------------------------------


def imagenet_features(weights: str | os.PathLike[str] | None = None) -> Callable[[Image], NDArray[np.float32]]:
    """A function from images to what DenseNet-161 sees of them as ImageNet has left it, float32 (4416,).

    Maximum and mean over its last channels, from the uncropped image at 224 x 224, as the paper's head gets them.
    ``weights``: as `densenet.find_weights`. The function raises ReadError where there are none, and
    MissingDependencyError without torch.
    """
    front_end = Cutout(densenet.SIZE, crop=None)

    @functools.cache
    def network() -> Any:
        found = densenet.find_weights(weights)  # before the network is made: without weights there is no need of it
        net = densenet.network()
        densenet.load_weights(net, found)
        return net.eval()

    def describe(image: Image) -> NDArray[np.float32]:
        torch, net = import_torch(), network()
        seen = torch.from_numpy(front_end.describe(image))[None]
        with torch.inference_mode():
            return np.asarray(net.pooled(seen)[0].numpy())

    return describe


# ---- triplets ------------------------------------------------------------------------------------------------------

TRIPLET_BACKBONE = densenet.Backbone(growth=12, blocks=(2, 4, 6))
TRIPLET_SIZE, TRIPLET_EPOCHS = 72, 12


def train_triplets(
    images: NDArray[np.float32], reference: RadioSet, epochs: int = TRIPLET_EPOCHS, seed: int = 0
) -> Encoder:
    """The paper's training with a DenseNet of a hundredth of the size, from random weights: eight bits by triplets.

    ``images``: float32 (n, 72, 72), what ``Cutout(72, None)`` makes of the ``reference``, whose classes are balanced as
    in the paper. Raises MissingDependencyError without torch or onnx, ArgumentError.
    """
    learnt = balanced(replace(reference, images=list(images)), seed)
    training = densenet.train(
        np.stack(learnt.images), learnt.labels, epochs=epochs, seed=seed, num_threads=1, backbone=TRIPLET_BACKBONE
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "triplets.onnx")
        return densenet.export(path, training, Cutout(images.shape[1], None), path.stem, "reference")
