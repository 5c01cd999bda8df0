"""Labelled radio galaxies retrieved by the codes of one encoder: what the paper's tables and figures are made of."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash.encoder import Encoder
from fasthash.errors import EncoderError
from fasthash.hamming import knn_hamming
from fasthash.io import Image
from fasthash.plots import Picture
from fasthash.radio.cutout import Cutout
from fasthash.radio.dataset import RadioSet, describe_set, stands_in
from fasthash.ranking import RankingReport, evaluate_percentiles, evaluate_ranking, label_codes

PERCENTILES = range(0, 101, 5)


def radio_encoder(encoder: Encoder) -> Encoder:
    """The encoder, if it is one of cut-outs; raises EncoderError."""
    if not isinstance(encoder.front_end, Cutout):
        raise EncoderError(f"{encoder.source}: not an encoder of radio galaxies")
    return encoder


class Retrieval:
    """Queries and a reference, both hashed by one encoder.

    Parameters
    ----------
    encoder : Encoder
        One of cut-outs (`radio_encoder`).
    query, reference : RadioSet
        What the encoder cannot use is left out, and named in ``problems``.
    percentile : float, optional
        One threshold per image, at this percentile of its own values; default: the encoder's own way to bits.
    codes_from_labels : bool
        Give every reference image the code of its class (`fasthash.ranking.label_codes`): not the paper's protocol.
    k : int
        Neighbours that vote on a class.
    progress : callable(done, total), optional
    """

    def __init__(
        self,
        encoder: Encoder,
        query: RadioSet,
        reference: RadioSet,
        percentile: float | None = None,
        codes_from_labels: bool = False,
        k: int = 10,
        num_threads: int = -1,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        encoder = radio_encoder(encoder)
        self.encoder, self.codes_from_labels, self.k, self.num_threads = encoder, codes_from_labels, k, num_threads
        self.percentile = encoder.percentile if percentile is None else percentile
        asked, self.query, problems = describe_set(query, encoder.front_end, num_threads)
        known, self.reference, more = describe_set(reference, encoder.front_end, num_threads)
        self.problems = [*problems, *more]
        hashes = encoder.encode_inputs(np.concatenate([asked, known]), num_threads, progress)
        self.query_hashes, self.reference_hashes = hashes[: len(asked)], hashes[len(asked) :]
        self.query_codes = encoder.binarize(self.query_hashes, self.percentile)
        self.reference_codes = self._of_reference(encoder.binarize(self.reference_hashes, self.percentile))

    def _of_reference(self, codes: Any) -> Any:
        return label_codes(codes, self.reference.labels, self.encoder.n_bits) if self.codes_from_labels else codes

    def report(self, rows: Any = slice(None)) -> RankingReport:
        """Mean average precision of all queries, or of some ``rows`` of them."""
        asked = self.query_codes[rows], self.query.labels[rows]
        known = self.reference_codes, self.reference.labels
        return evaluate_ranking(*asked, *known, self.encoder.n_bits, k=self.k, num_threads=self.num_threads)

    def without_duplicates(self) -> RankingReport | None:
        """The report of the queries that do not stand in the reference; None where none has its class there."""
        kept = self.unknown()
        return self.report(kept) if np.isin(self.query.labels[kept], self.reference.labels).any() else None

    def unknown(self) -> NDArray[np.bool_]:
        """Which queries do not stand in the reference."""
        return ~stands_in(self.query, self.reference)

    def sweep(self, rows: Any = slice(None)) -> tuple[Sequence[int], list[RankingReport]]:
        """PERCENTILES, and the report of all queries under each, or of some ``rows`` of them (the paper's Fig. 3)."""
        sets = self.query_hashes[rows], self.query.labels[rows], self.reference_hashes, self.reference.labels

        def binarize(hashes: Any, percentile: float) -> Any:
            codes = self.encoder.binarize(hashes, percentile)
            return self._of_reference(codes) if hashes is self.reference_hashes else codes

        n_bits, threads = self.encoder.n_bits, self.num_threads
        return PERCENTILES, evaluate_percentiles(*sets, n_bits, PERCENTILES, binarize=binarize, num_threads=threads)

    def gallery(self, report: RankingReport, n_hits: int = 8) -> list[list[Picture]]:
        """Of each class the query of median average precision, and its nearest, ties in random order (Fig. 4)."""
        matched = np.flatnonzero(np.isin(self.query.labels, self.reference.labels))
        rows = []
        for i in np.unique(report.query_class):
            own = np.flatnonzero(report.query_class == i)
            median = own[np.argsort(report.scores[own, 0], kind="stable")[len(own) // 2]]
            rows.append(self._query_and_hits(matched[median], n_hits))
        return rows

    def _query_and_hits(self, asked: int, n_hits: int) -> list[Picture]:
        shuffled = np.random.default_rng(0).permutation(len(self.reference))  # rows are in the order of classes
        distances, found = knn_hamming(self.query_codes[asked], self.reference_codes[shuffled], n_hits)
        label = str(self.query.labels[asked])
        pictures = [Picture(self._view(self.query, asked), label=label)]
        for row, distance in zip(shuffled[found[0]], distances[0], strict=True):
            its = str(self.reference.labels[row])
            view = self._view(self.reference, row)
            pictures.append(Picture(view, label=its, distance=int(distance), wrong=its != label))
        return pictures

    def _view(self, images: RadioSet, row: int) -> Any:
        front_end: Any = self.encoder.front_end
        return front_end.picture(Image(images.images[row], str(images.names[row])))
