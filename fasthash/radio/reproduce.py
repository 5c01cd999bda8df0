"""The radio comparison: our encoders, the paper's triplets and plain representations, by mean average precision."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash.baselines import LinearHash, itq, random_projection
from fasthash.encoder import Encoder
from fasthash.errors import ArgumentError
from fasthash.evaluation import block_interval, exact_index
from fasthash.io import Image
from fasthash.radio import baselines, densenet
from fasthash.radio.cutout import Cutout
from fasthash.radio.dataset import RadioSet, without
from fasthash.radio.simulator import is_simulated, simulate_galaxies
from fasthash.ranking import TOP, average_precision
from fasthash.reproduce import Describe, Hash, Method, Published, Row, codes_of, compare, describe_all

COUNT, SEED = 1000, 2026
N_BITS, FEW_BITS = 64, 8

_Progress = Callable[[int, int], None]
_Fit = Callable[[NDArray[np.float32]], Hash]


def reproduce_radio(
    reference: RadioSet | None,
    query: RadioSet | None,
    encoders: Sequence[Encoder],
    weights: str | os.PathLike[str] | None = None,
    progress: Callable[[str], _Progress] = lambda _: lambda *_: None,
) -> tuple[dict[str, Any], list[Row]]:
    """Compare representations: each query ranks the reference; relevant is what has its class.

    Queries that stand in the reference, to the pixel or as the same source of the sky, are left out. Without sets,
    simulated galaxies are taken. ``weights``: of DenseNet-161, as `densenet.find_weights`. ``progress``: from what is
    being done to a function of (done, total). Returns a report for JSON and the rows.
    Raises ArgumentError where nothing is left to be asked.
    """
    if reference is None or query is None:
        galaxies = simulate_galaxies(COUNT, SEED, progress=progress("simulated"))
        reference, query = galaxies.split("train"), galaxies.split("test")
    asked = without(query, reference)
    n_duplicates = len(query) - len(asked)
    if not len(asked):
        raise ArgumentError(f"query: all of its {len(query)} images stand in the reference")
    sets, show = (reference, asked), progress("described")
    total = len(reference) + len(asked)
    images = (Image(p, str(name)) for each in sets for p, name in zip(each.images, each.names, strict=True))
    told = describe_all(_descriptors(encoders, weights), images, lambda done: show(done, total))
    kept = np.array([image.path for image in told.images])
    reference, asked = (each.take(np.isin(each.names, kept)) for each in sets)
    known = np.arange(len(kept)) < len(reference)
    judge = _Judge(reference.labels, asked.labels)
    rows = compare([*_methods(encoders, reference)], told, known, judge, progress("compared"))
    return {
        "data": _describe_data(kept),
        "protocol": "each query ranks all of the reference; relevant: of its class; ties averaged exactly; queries "
        "that stand in the reference left out",
        "n_reference": len(reference),
        "n_query": len(asked),
        "n_duplicates": n_duplicates,
        "chance": judge.chance(),
        "chance_top100": judge.chance(TOP),
        "left_out": told.problems,
    }, rows


def _describe_data(names: NDArray[np.str_]) -> str:
    simulated = sum(is_simulated(name) for name in names)
    made = {0: "", len(names): "SIMULATED by fasthash, "}.get(simulated, f"{simulated} of them SIMULATED, ")
    return f"{made}{len(names)} galaxies"


class _Judge:
    """Mean average precision of hashes or codes: rows of the reference first, then those of the queries."""

    def __init__(self, reference_labels: NDArray[np.str_], query_labels: NDArray[np.str_]) -> None:
        matched = np.isin(query_labels, reference_labels)
        if not matched.any():
            raise ArgumentError("query: none of its classes is in the reference")
        self.labels, self.wanted, self.matched = reference_labels, query_labels[matched], matched

    def __call__(self, hashes: NDArray[Any], metric: str) -> dict[str, Any]:
        n = len(self.labels)
        distances, found = exact_index(hashes[:n], metric).search(hashes[n:][self.matched], n)
        counts = count_ties(distances, self.labels[found] == self.wanted[:, None])
        scores = average_precision(*counts)
        low, high = block_interval(scores[:, None], np.ones(len(scores), np.int64), seed=0)[:, 0]
        return {
            "map": float(scores.mean()),
            "ci95": [float(low), float(high)],
            "map_top100": float(average_precision(*counts, TOP).mean()),
        }

    def chance(self, top: int | None = None) -> float:
        """What a random ranking has."""
        positives = (self.labels == self.wanted[:, None]).sum(axis=1, keepdims=True)
        return float(average_precision(np.full_like(positives, len(self.labels)), positives, top).mean())


def count_ties(distances: NDArray[Any], relevant: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What `average_precision` takes, of rankings by any distance: how many images are equally near, how many relevant.

    Both arguments (n_queries, n), nearest first. Returns counts and positives, int64 (n_queries, n): of the first,
    second … group of equal distance, and 0 beyond the last.
    """
    starts = np.ones(distances.shape, bool)
    starts[:, 1:] = distances[:, 1:] != distances[:, :-1]
    group = np.cumsum(starts, axis=1) - 1
    counts, positives = np.zeros((2, *distances.shape), np.int64)
    row = np.arange(len(distances))[:, None]
    np.add.at(counts, (row, group), 1)
    np.add.at(positives, (row, group), relevant)
    return counts, positives


# ---- what is compared ----------------------------------------------------------------------------------------------

_PAPER = Published(
    0.885, "Ndung'u et al. 2023, DenseNet-161, 8 bits; .835 with the threshold chosen on valid; test images"
)
_COSFIRE = Published(0.91, "Ndung'u et al. 2025, COSFIRE filters and a trained hash of 72 bits; test images")


def _descriptors(encoders: Sequence[Encoder], weights: str | os.PathLike[str] | None) -> dict[str, Describe]:
    return {
        **{encoder.name: encoder.front_end.describe for encoder in encoders},
        "images": Cutout(baselines.TRIPLET_SIZE, None).describe,
        "polar": baselines.polar_responses,
        "ImageNet": baselines.imagenet_features(weights),
        "pixels": lambda image: _PIXELS.describe(image).ravel(),
    }


_PIXELS = Cutout(32, 90, "sqrt")


def _methods(encoders: Sequence[Encoder], reference: RadioSet) -> Iterator[Method]:
    for encoder in encoders:
        yield codes_of(encoder)

    def triplets(images: NDArray[np.float32]) -> Hash:
        encoder = baselines.train_triplets(images, reference)
        return lambda rows: encoder.binarize(encoder.encode_inputs(rows))

    def filters(responses: NDArray[np.float32]) -> Hash:
        return baselines.prototype_filters(responses, reference.labels)

    yield Method("triplets, small network", "images", triplets, densenet.N_BITS, published=_PAPER)
    yield Method("COSFIRE-like filters", "polar", filters, published=_COSFIRE)
    yield Method("ITQ of COSFIRE-like filters", "polar", _bits(itq, N_BITS, filters), N_BITS)
    yield Method("ImageNet features", "ImageNet", _as_they_are, metric="cosine")
    yield Method("ITQ of ImageNet features", "ImageNet", _bits(itq, N_BITS), N_BITS)
    yield Method("pixels, 32 x 32", "pixels", _as_they_are)
    yield Method("LSH of pixels", "pixels", _bits(random_projection, N_BITS), N_BITS)
    yield Method("ITQ of pixels", "pixels", _bits(itq, N_BITS), N_BITS)
    yield Method("ITQ of pixels", "pixels", _bits(itq, FEW_BITS), FEW_BITS)


def _as_they_are(_: NDArray[np.float32]) -> Hash:
    return lambda rows: rows


def _bits(fit: Callable[[Any, int], LinearHash], n_bits: int, first: _Fit = _as_they_are) -> _Fit:
    """Codes by a hash that is fitted to what the ``first`` step makes of the archive."""

    def fitted(archive: NDArray[np.float32]) -> Hash:
        describe = first(archive)
        hasher = fit(describe(archive), n_bits)
        return lambda rows: hasher.binarize(describe(rows))

    return fitted
