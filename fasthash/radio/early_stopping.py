"""Early stopping: while a network trains, it is judged by images kept out, and the best of its weights are kept.

Training ends where no judgement of the last epochs, its patience, is better than the best before (Prechelt, "Early
stopping - but when?", 1998). Where the learning rate falls to nothing, the last weights are nearly always the best.
"""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._training import data_digest
from fasthash._validation import check_int
from fasthash.codes import pack_bits
from fasthash.errors import ArgumentError
from fasthash.radio.dataset import CLASSES
from fasthash.ranking import evaluate_ranking

EVERY = 10  # epochs from one judgement to the next; it takes as long as one of them


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Queries that are never trained on, and the reference images among which they are to find those of their class.

    query, reference : float32 (n, height, width), as the encoder's front end gives them.
    query_labels, reference_labels : int64 (n,), positions in CLASSES.
    """

    query: NDArray[np.float32]
    query_labels: NDArray[np.int64]
    reference: NDArray[np.float32]
    reference_labels: NDArray[np.int64]

    def check(self, shape: tuple[int, int]) -> None:
        """Raise ArgumentError unless both are images of that shape, each with a label, some label in both."""
        classes = range(len(CLASSES))
        for name in ("query", "reference"):
            images, labels = getattr(self, name), getattr(self, f"{name}_labels")
            if images.dtype != np.float32 or images.ndim != 3 or images.shape[1:] != shape or not len(images):
                wanted = f"float32 (n, {shape[0]}, {shape[1]}), n at least 1"
                raise ArgumentError(f"held_out.{name}: expected {wanted}, got {images.dtype} {images.shape}")
            if labels.shape != (len(images),) or labels.dtype.kind != "i" or not set(labels) <= set(classes):
                wanted = f"{len(images)} integers in [0, {classes[-1]}]"
                raise ArgumentError(f"held_out.{name}_labels: expected {wanted}, got {labels.dtype} {labels.shape}")
        if not np.isin(self.query_labels, self.reference_labels).any():
            raise ArgumentError("held_out: no query has an image of its class in the reference")

    def digest(self) -> str:
        """What tells these images from others."""
        return data_digest(self.query, self.query_labels, self.reference, self.reference_labels)


@dataclass(frozen=True)
class Judgement:
    """What a network was worth after an epoch.

    map : mean average precision of the held-out queries, by the signs of the hashes, as `evaluate_ranking` has it.
    accuracy : share of the reference images whose hash is nearest, by the cosine, to the code of their own class.
    """

    epoch: int
    map: float
    accuracy: float


class EarlyStopping:
    """The judgements of a training, and the best weights; a part of its checkpoint like network and optimiser.

    Parameters
    ----------
    network : torch module
        What is judged; ``best`` is a copy of it that has the weights after the epoch ``kept``.
    hashes_of : callable
        (network, images) to hashes float32 (n, n_bits).
    class_codes : float32 (4, n_bits)
        The code of each class, +1 and -1.
    held_out : HeldOut
    patience : int
        Epochs without a better judgement after which training is over.
    """

    def __init__(
        self,
        network: Any,
        hashes_of: Callable[[Any, NDArray[np.float32]], NDArray[np.float32]],
        class_codes: NDArray[np.float32],
        held_out: HeldOut,
        patience: int,
    ) -> None:
        self.network, self.hashes_of, self.class_codes, self.held_out = network, hashes_of, class_codes, held_out
        self.patience = check_int("patience", patience, 1)
        self.best, self.judgements = copy.deepcopy(network), list[Judgement]()

    @property
    def kept(self) -> int:
        """Epoch of the best judgement: of equal ones, the last."""
        return max(self.judgements, key=lambda each: (each.map, each.epoch)).epoch

    @property
    def last(self) -> Judgement | None:
        return self.judgements[-1] if self.judgements else None

    @property
    def over(self) -> bool:
        return bool(self.judgements) and self.judgements[-1].epoch - self.kept >= self.patience

    def judge(self, epoch: int) -> None:
        """Judge the network as it is after an epoch; it and all random states stay as they are."""
        held_out, names = self.held_out, np.array(CLASSES)
        query, reference = (self.hashes_of(self.network, images) for images in (held_out.query, held_out.reference))
        asked, known = names[held_out.query_labels], names[held_out.reference_labels]
        report = evaluate_ranking(
            pack_bits(query > 0), asked, pack_bits(reference > 0), known, query.shape[1], num_threads=1
        )
        # The codes are equally long, so the largest product is the largest cosine.
        nearest = (reference @ self.class_codes.T).argmax(axis=1)
        accuracy = float((nearest == held_out.reference_labels).mean())
        self.judgements.append(Judgement(epoch, report.map, accuracy))
        if self.kept == epoch:
            self.best.load_state_dict(self.network.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best.state_dict(), "judgements": [asdict(each) for each in self.judgements]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best.load_state_dict(state["best"])
        self.judgements = [Judgement(**each) for each in state["judgements"]]
