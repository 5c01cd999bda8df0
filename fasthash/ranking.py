"""How good is a ranking by Hamming distance where labels say what is alike? Mean average precision, ties averaged.

A query's average precision is the mean of the precision at the rank of each image of its own class (Ndung'u et al.,
"Deep supervised hashing for fast retrieval of radio image cubes", 2023, equations 1 and 2). Short codes tie by the
hundred, and equally near images have no order: what is given here is the exact mean over all orders of each group of
equal distance, in closed form. It needs no ranking, only how many images there are at each distance from a query.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln

from fasthash._validation import check_int
from fasthash.codes import as_padded_codes, binarize_percentile, pack_bits, unpack_bits
from fasthash.errors import ArgumentError
from fasthash.evaluation import block_interval
from fasthash.hamming import MAX_BITS, count_hamming

TOP = 100  # ranks that the published code looks at
VARIANTS = ("map", "map_top100", "map_top100_retrieved")

_Counts = NDArray[np.int64]
_Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RankingReport:
    """What `evaluate_ranking` found.

    Attributes
    ----------
    scores : float64 (n_query, 3)
        Average precision of each query in the three `VARIANTS`: over the full ranking; over the first 100 ranks,
        divided by as many images of the class as there can be among them; over the same, divided by as many as there
        are. The last does not notice what is missing, and is the more flattering.
    chances : float64 (n_query, 3)
        What they are for a random ranking, or for an encoder that gives every image the same code.
    ci95 : tuple of float
        95 % interval of `map` from the bootstrap over queries.
    oracle : dict of str to float
        `map` where codes know the labels: those of the "query", of the "reference", or "both". See `label_codes`.
    n_bits, n_reference, k : int
    n_unmatched : int
        Queries left out, since no image of the reference is of their class.
    classes : strings (n_classes,)
    class_sizes : int64 (n_classes,)
        Images of the reference.
    query_class : int64 (n_query,)
        Number of each query's class.
    confusion : int64 (n_classes, n_classes)
        Queries of the row's class that the k nearest images took for the column's.
    """

    scores: _Values
    chances: _Values
    ci95: tuple[float, float]
    oracle: dict[str, float]
    n_bits: int
    n_reference: int
    k: int
    n_unmatched: int
    classes: NDArray[np.str_]
    class_sizes: NDArray[np.int64]
    query_class: NDArray[np.int64]
    confusion: NDArray[np.int64]

    @property
    def n_query(self) -> int:
        """Queries that were judged."""
        return len(self.scores)

    @property
    def map(self) -> float:
        """Mean average precision over the full ranking."""
        return _means(self.scores)["map"]

    @property
    def chance(self) -> float:
        """The same for a random ranking."""
        return _means(self.chances)["map"]

    @property
    def knn_accuracy(self) -> float:
        """Share of the queries whose class most of the k nearest images have."""
        return float(np.trace(self.confusion) / self.n_query)

    def per_class(self) -> dict[str, dict[str, Any]]:
        """The figures of the queries of each class that has any."""
        return {str(name): self._of_class(i) for i, name in enumerate(self.classes) if (self.query_class == i).any()}

    def _of_class(self, i: int) -> dict[str, Any]:
        asked = self.query_class == i
        return {
            **_means(self.scores[asked]),
            "chance": float(self.chances[asked, 0].mean()),
            "knn_accuracy": float(self.confusion[i, i] / asked.sum()),
            "n_query": int(asked.sum()),
            "n_reference": int(self.class_sizes[i]),
        }

    def to_dict(self) -> dict[str, Any]:
        """The numbers, without those of single queries, ready for JSON."""
        chances = {name.replace("map", "chance"): value for name, value in _means(self.chances).items()}
        return {
            **_means(self.scores),
            **chances,
            "ci95": list(self.ci95),
            "n_bits": self.n_bits,
            "n_query": self.n_query,
            "n_reference": self.n_reference,
            "n_unmatched": self.n_unmatched,
            "oracle": self.oracle,
            "k": self.k,
            "knn_accuracy": self.knn_accuracy,
            "classes": self.classes.tolist(),
            "confusion": self.confusion.tolist(),
            "per_class": self.per_class(),
        }


def _means(scores: _Values) -> dict[str, float]:
    return {name: float(value) for name, value in zip(VARIANTS, scores.mean(axis=0), strict=True)}


def evaluate_ranking(
    query_codes: Any,
    query_labels: Any,
    reference_codes: Any,
    reference_labels: Any,
    n_bits: int,
    *,
    k: int = 10,
    seed: int = 0,
    num_threads: int = -1,
) -> RankingReport:
    """Mean average precision of queries in a reference set: an image is relevant where its class is the query's.

    Parameters
    ----------
    query_codes, reference_codes : uint8 (n_query, n_bytes) and (n_reference, n_bytes), n_bytes = ceil(n_bits / 8)
        Codes in `numpy.packbits` order. No image leaves out another: one that is in both sets finds itself.
    query_labels, reference_labels : strings (n_query,) and (n_reference,)
    n_bits : int
    k : int
        Neighbours that vote on a query's class.
    seed : int
        Of the bootstrap, in which queries are drawn again 1,000 times.
    num_threads : int
        -1: one for each core.

    Raises
    ------
    ArgumentError
        Where an argument has the wrong type, shape or value, or no query has an image of its class in the reference.
    """
    k = check_int("k", k, 1)
    asked, wanted = _as_labelled("query", query_codes, query_labels, n_bits)
    known, labels = _as_labelled("reference", reference_codes, reference_labels, n_bits)
    matched = np.isin(wanted, labels)
    if not matched.any():
        raise ArgumentError("query_labels: no query has an image of its class in the reference")
    asked, wanted = asked[matched], wanted[matched]
    classes, class_of, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    truth = np.searchsorted(classes, wanted)
    counts = count_hamming(asked, known, class_of, num_threads)
    scores = _scores(counts, truth)
    low, high = block_interval(scores[:, :1], np.ones(len(truth), np.int64), seed)[:, 0]
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (truth, vote(counts, k)), 1)
    return RankingReport(
        scores=scores,
        chances=_scores(np.tile(sizes[:, np.newaxis], (len(truth), 1, 1)), truth),
        ci95=(float(low), float(high)),
        oracle=_oracle(asked, truth, known, class_of, int(n_bits), num_threads),
        n_bits=int(n_bits),
        n_reference=len(known),
        k=k,
        n_unmatched=int((~matched).sum()),
        classes=classes,
        class_sizes=sizes,
        query_class=truth,
        confusion=confusion,
    )


def evaluate_percentiles(
    query_hashes: Any,
    query_labels: Any,
    reference_hashes: Any,
    reference_labels: Any,
    n_bits: int,
    percentiles: Iterable[float] = range(0, 101, 5),
    *,
    binarize: Callable[[Any, float], NDArray[np.uint8]] = binarize_percentile,
    **options: Any,
) -> list[RankingReport]:
    """`evaluate_ranking` with one threshold per image, at each of some percentiles of its values (the paper's Fig. 3).

    Hashes: float32 (n, d), from which ``binarize`` (`binarize_percentile`, or an encoder's) makes codes of n_bits bits;
    the other arguments and errors are those of `evaluate_ranking`. The best of the curve is no result: choose a
    percentile on other queries than those it is judged by.
    """

    def at(percentile: float) -> RankingReport:
        asked, known = (binarize(hashes, percentile) for hashes in (query_hashes, reference_hashes))
        return evaluate_ranking(asked, query_labels, known, reference_labels, n_bits, **options)

    return [at(percentile) for percentile in percentiles]


# ---- average precision from counts ---------------------------------------------------------------------------------


def average_precision(counts: Any, positives: Any, top: int | None = None, of_retrieved: bool = False) -> _Values:
    """Average precision of rankings of which only the counts at each distance are known, mean over all orders.

    A group of *n* equally near images, *p* of them relevant, stands behind *b* nearer ones with *h* relevant. In a
    random order, rank b + i is relevant with probability p / n, and then each of the i - 1 before it in the group with
    probability (p - 1) / (n - 1). So the first m ranks of the group add, in the mean,

        sum over i = 1 … m of  p/n (h + 1 + (i - 1) (p - 1)/(n - 1)) / (b + i)
        = p/n ((h + 1) s + (p - 1)/(n - 1) (m - (b + 1) s)),      s = 1/(b + 1) + … + 1/(b + m).

    Parameters
    ----------
    counts, positives : integers (n_queries, n_distances)
        Images at each distance, and those of them that are relevant.
    top : int, optional
        Look at so many ranks only. The sum is then divided by min(relevant, top).
    of_retrieved : bool
        Divide by the relevant images among the ``top`` ranks instead (0 where there are none).

    Returns
    -------
    float64 (n_queries,); 0 for a query without any relevant image.
    """
    counts, positives = _as_counts(counts, positives)
    n, p = counts.astype(np.float64), positives.astype(np.float64)
    before, hits = np.cumsum(n, axis=1) - n, np.cumsum(p, axis=1) - p
    seen = n if top is None else np.clip(check_int("top", top, 1) - before, 0, n)  # m
    if top is not None and of_retrieved:
        return _mean_of_retrieved(n, p, before, hits, seen)
    wanted = p.sum(axis=1) if top is None else np.minimum(p.sum(axis=1), top)
    return _precisions(p, n, before, hits, seen).sum(axis=1) / np.maximum(wanted, 1)


def _precisions(p: _Values, n: _Values, before: _Values, hits: _Values, seen: _Values) -> _Values:
    """What groups of n with p relevant add to the sum of precisions with their first ``seen`` ranks, in the mean."""
    harmonic = digamma(before + seen + 1) - digamma(before + 1)
    pairs = np.divide(p - 1, n - 1, out=np.zeros_like(n), where=n > 1)
    share = np.divide(p, n, out=np.zeros_like(n), where=n > 0)
    return np.asarray(share * ((hits + 1) * harmonic + pairs * (seen - (before + 1) * harmonic)))


def _mean_of_retrieved(n: _Values, p: _Values, before: _Values, hits: _Values, seen: _Values) -> _Values:
    """The sum of precisions over the relevant images seen, of which a group that is cut holds x with some probability.

    Of n equally near images m are seen: how many of the p relevant ones are among them is hypergeometric, and given x
    of them, they stand among the m as a whole group of m with x relevant would.
    """
    last = (n.shape[1] - 1 - np.argmax(seen[:, ::-1] > 0, axis=1))[:, np.newaxis]  # the group that is cut, if any is
    whole = np.where(np.arange(n.shape[1]) < last, _precisions(p, n, before, hits, seen), 0).sum(axis=1, keepdims=True)
    p, n, before, hits, m = (np.take_along_axis(values, last, axis=1) for values in (p, n, before, hits, seen))
    x = np.arange(m.max(initial=0) + 1)[np.newaxis]
    total = whole + _precisions(*np.broadcast_arrays(x, m, before, hits, m))
    return np.asarray((_hypergeometric(x, n, p, m) * total / np.maximum(hits + x, 1)).sum(axis=1))


def _hypergeometric(x: _Values, n: _Values, p: _Values, m: _Values) -> _Values:
    """Probability that m of n images, p of them relevant, hold x relevant ones."""
    possible = (x <= np.minimum(p, m)) & (m - x <= n - p)
    x = np.where(possible, x, np.maximum(m - (n - p), 0))
    logs = _log_choose(p, x) + _log_choose(n - p, m - x) - _log_choose(n, m)
    return np.where(possible, np.exp(logs), 0)


def _log_choose(n: _Values, k: _Values) -> _Values:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def _as_counts(counts: Any, positives: Any) -> tuple[_Counts, _Counts]:
    counts, positives = np.asarray(counts), np.asarray(positives)
    for name, array in (("counts", counts), ("positives", positives)):
        if array.ndim != 2 or array.dtype.kind not in "iu" or array.shape != counts.shape or not array.shape[1]:
            wanted = "integers (n_queries, n_distances)"
            raise ArgumentError(f"{name}: expected {wanted}, both alike, got {array.dtype} {array.shape}")
    if counts.size and not (positives.min() >= 0 and (positives <= counts).all()):
        raise ArgumentError("positives: expected at least 0, and nowhere more than counts")
    return counts, positives


# ---- votes and codes of classes --------------------------------------------------------------------------------------


def vote(counts: _Counts, k: int) -> NDArray[np.int64]:
    """The class that most of the k nearest images have, int64 (n_queries,), from counts (n_queries, n_classes, n).

    Where only some of a group of equally near images are among the k, its classes share the votes that are left. Where
    several classes have the most votes, the one with the nearest image wins.
    """
    groups = counts.sum(axis=1, keepdims=True)
    left = np.clip(k - (np.cumsum(groups, axis=2) - groups), 0, groups)
    votes = (counts * (left / np.maximum(groups, 1))).sum(axis=2)
    leading = votes >= votes.max(axis=1, keepdims=True) - 1e-9  # shares of a vote are rounded
    nearest = np.argmax(counts > 0, axis=2)
    return np.asarray(np.where(leading, nearest, counts.shape[2]).argmin(axis=1))


def label_codes(codes: NDArray[np.uint8], labels: Any, n_bits: int) -> NDArray[np.uint8]:
    """Codes that know the labels: each image's becomes that of its class, the majority of the class in every bit.

    Codes uint8 (n, n_bytes) and n labels to uint8 (n, n_bytes). An archive that is labelled may be searched by them,
    which is another protocol than that of the paper: there the reference images go through the network too.
    Raises ArgumentError where codes or labels have another type, shape or value.
    """
    checked, names = _as_labelled("", codes, labels, n_bits)
    class_of = np.unique(names, return_inverse=True)[1]
    return _centres(checked, class_of, n_bits)[class_of]


def _centres(codes: NDArray[np.uint8], class_of: NDArray[np.int64], n_bits: int) -> NDArray[np.uint8]:
    """The majority in every bit of the codes of each class, uint8 (n_classes, n_bytes); a draw is a one."""
    bits, sizes = unpack_bits(codes, n_bits), np.bincount(class_of)
    ones = np.stack([bits[class_of == i].sum(axis=0, dtype=np.int64) for i in range(len(sizes))])
    return pack_bits(2 * ones >= sizes[:, np.newaxis])


def _oracle(
    asked: NDArray[np.uint8],
    truth: NDArray[np.int64],
    known: NDArray[np.uint8],
    class_of: NDArray[np.int64],
    n_bits: int,
    num_threads: int,
) -> dict[str, float]:
    """Mean average precision where the codes of the query, of the reference or of both know the labels."""
    centres = _centres(known, class_of, n_bits)

    def score(query: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
        counts = count_hamming(query, reference, class_of, num_threads)
        return float(average_precision(*_own(counts, truth)).mean())

    by_label = centres[truth], centres[class_of]
    return {"query": score(by_label[0], known), "reference": score(asked, by_label[1]), "both": score(*by_label)}


def _own(counts: _Counts, truth: NDArray[np.int64]) -> tuple[_Counts, _Counts]:
    """Of counts (n_queries, n_classes, n): all, and those of the query's own class, both (n_queries, n)."""
    return counts.sum(axis=1), counts[np.arange(len(truth)), truth]


def _scores(counts: _Counts, truth: NDArray[np.int64]) -> _Values:
    """Average precision in the three VARIANTS, (n_queries, 3)."""
    own = _own(counts, truth)
    return np.stack([average_precision(*own), average_precision(*own, TOP), average_precision(*own, TOP, True)], axis=1)


def _as_labelled(whose: str, codes: Any, labels: Any, n_bits: int) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """Codes of n_bits bits, and a class for each of them."""
    prefix = f"{whose}_" if whose else ""
    checked = as_padded_codes(f"{prefix}codes", codes, check_int("n_bits", n_bits, 1, MAX_BITS))
    names = np.asarray(labels)
    if names.dtype.kind != "U" or names.shape != (len(checked),):
        wanted = f"{len(checked)} strings, one for each code"
        raise ArgumentError(f"{prefix}labels: expected {wanted}, got {names.dtype} {names.shape}")
    if len(checked) == 0 or (names == "").any():
        raise ArgumentError(f"{prefix}labels: expected at least one, and none of them empty")
    return checked, names
