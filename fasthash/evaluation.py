"""How good is a ranking? The window protocol of the solar paper, with its chance level and its uncertainty.

No one has labelled a million magnetograms by likeness, but the Sun turns slowly: frames taken close in time look
alike. Grycuk and Scherer (section 3) therefore call the frames within 24 h either side of a query its *similar
images* (SI), retrieve as many frames as there are similar ones, and count how many of these are similar.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._validation import as_codes, as_vectors, check_choice, check_int
from fasthash.errors import ArgumentError
from fasthash.hamming import HammingIndex
from fasthash.index import METRICS as VECTOR_METRICS
from fasthash.index import FlatIndex
from fasthash.times import NAT, Span, as_span, parse_time

METRICS = (*VECTOR_METRICS, "hamming")
_HOUR_MS = 3_600_000
_RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class WindowReport:
    """What `evaluate_window` found; the numbers are means over the queries, the arrays hold one value a query or a k.

    Attributes
    ----------
    precision, recall : float
        Hits among the k retrieved, divided by k and by the number of similar images. As k *is* that number, the two
        are equal; both are given because the paper gives both.
    precision_at : dict of int to float
        Share of the K nearest frames which are similar, for a few fixed K.
    ceiling_at : dict of int to float
        What a perfect ranking would have there: with 24 similar images, 50 frames hold at best .48.
    chance : float
        The precision a random ranking would have: similar images as a share of all frames that may be retrieved.
    ci95 : tuple of float
        95 % interval of `precision` from the bootstrap over blocks of time.
    n_images, n_queries, n_untimed : int
        All frames given; queries with at least one similar image; frames left out because their time is unknown.
    si_mean : float
        Similar images a query, on average.
    window_hours, exclude_within_hours, metric
        The protocol, as asked for.
    queries : int64 (n_queries,)
        Row of each query in the hashes given.
    query_precision : float64 (n_queries,)
    query_similar : int64 (n_queries,)
        Precision and number of similar images of each query.
    curve : float64 (depth,)
        Mean precision at k = 1, 2, …, depth.
    curve_ci95 : float64 (2, depth)
        Its 95 % interval, lower and upper ends.
    ceiling : float64 (depth,)
        The same for a perfect ranking: below 1 where k exceeds the similar images there are.
    """

    precision: float
    recall: float
    precision_at: dict[int, float]
    ceiling_at: dict[int, float]
    chance: float
    ci95: tuple[float, float]
    n_images: int
    n_queries: int
    n_untimed: int
    si_mean: float
    window_hours: float
    exclude_within_hours: float
    metric: str
    queries: NDArray[np.int64]
    query_precision: NDArray[np.float64]
    query_similar: NDArray[np.int64]
    curve: NDArray[np.float64]
    curve_ci95: NDArray[np.float64]
    ceiling: NDArray[np.float64]

    def to_dict(self) -> dict[str, Any]:
        """The numbers without the arrays, ready for JSON."""
        return {
            "precision": self.precision,
            "recall": self.recall,
            "precision_at": {str(k): value for k, value in self.precision_at.items()},
            "ceiling_at": {str(k): value for k, value in self.ceiling_at.items()},
            "chance": self.chance,
            "ci95": list(self.ci95),
            "n_images": self.n_images,
            "n_queries": self.n_queries,
            "n_untimed": self.n_untimed,
            "si_mean": self.si_mean,
            "window_hours": self.window_hours,
            "exclude_within_hours": self.exclude_within_hours,
            "metric": self.metric,
        }


def evaluate_window(
    hashes: Any,
    times: Any,
    window: Span = "48h",
    exclude_within: Span = "0h",
    metric: str = "l2",
    *,
    k_at: Sequence[int] = (1, 10, 50),
    depth: int = 100,
    block: Span = "5d",
    seed: int = 0,
    num_threads: int = -1,
    progress: Callable[[int, int], None] | None = None,
) -> WindowReport:
    """Precision of retrieval when frames close in time are called similar (Grycuk and Scherer, section 3).

    Every frame with a known time is a query in turn. Its similar images are the frames at most ``window / 2`` before
    or after it; as many frames are retrieved as there are similar ones. The query itself never counts, and with
    ``exclude_within`` above zero neither does any frame that close to it in time, be it retrieved or similar: what is
    left cannot be found by merely recognising the same hour. Queries with no similar image are left out.

    Parameters
    ----------
    hashes : float32 (n, d), or uint8 (n, n_bytes) codes in `numpy.packbits` order for ``metric="hamming"``
    times : datetime64 (n,) or ISO 8601 strings in UTC; NaT or "" where unknown. Kept to the millisecond.
    window, exclude_within : timedelta64, or text such as "48h", "90min", "2d", or a number of hours
        The window's full width (48 h is 24 h either side), and half the width of what is taken out of it. Both ends
        are inclusive; zero takes out the query alone, even where other frames have the very same time.
    metric : "l2", "cosine" or "hamming"
        Ties are broken by row, as everywhere in fasthash.
    k_at : the K of ``precision_at``
        Where fewer than K frames may be retrieved, all of them are.
    depth : int
        Length of the precision curve; at least the largest ``k_at``, at most n - 1.
    block : timedelta64, or as above
        Length of a block in the bootstrap. Frames a few hours apart are nearly the same picture, so it is not frames
        but blocks of consecutive time that are drawn again, 1,000 times. Blocks should be longer than the window, and
        many: one block gives an interval of no width, and a handful one that is too narrow.
    seed : int
        Of the bootstrap.
    num_threads : int
        -1: one for each core.
    progress : called with (queries done, queries in all) after every few

    Raises
    ------
    ArgumentError
        Where an argument has the wrong type, shape or value (NaN in the hashes included), where fewer than two frames
        have a time, or where no query has a similar image.
    """
    check_choice("metric", metric, METRICS)
    rows = as_codes("hashes", hashes) if metric == "hamming" else as_vectors("hashes", hashes)
    stamps = _as_times(times, len(rows))
    window_ms = _as_milliseconds("window", window)
    exclude_ms = _as_milliseconds("exclude_within", exclude_within)
    k_at = [check_int("k_at", k, 1) for k in k_at]
    depth = max([check_int("depth", depth, 1), *k_at])
    block_ms = _as_milliseconds("block", block)
    if block_ms == 0:
        raise ArgumentError(f"block: expected more than 0, got {block!r}")

    timed = np.flatnonzero(~np.isnat(stamps))
    if len(timed) < 2:
        raise ArgumentError(f"times: expected at least two frames with a known time, got {len(timed)} of {len(rows)}")
    rows, ms, depth = rows[timed], stamps[timed].astype(np.int64), min(depth, len(timed) - 1)
    protocol = _Protocol(window_ms // 2, exclude_ms)
    n_similar, n_excluded = protocol.count(ms)
    queries = np.flatnonzero(n_similar)
    if len(queries) == 0:
        beyond = f" and more than {exclude_ms / _HOUR_MS:g} h away" if exclude_ms else ""
        raise ArgumentError(f"window: no frame has another within {window_ms / 2 / _HOUR_MS:g} h of it{beyond}")
    n_similar, n_allowed = n_similar[queries], (len(ms) - n_excluded)[queries]

    needed = np.minimum(np.maximum(n_similar, depth) + n_excluded[queries], len(ms))
    precision, hits = np.empty(len(queries)), np.empty((len(queries), depth), bool)
    done = 0
    for some, found in _rank(rows, queries, needed, metric, num_threads):
        precision[some], hits[some] = protocol.judge(found, queries[some], ms, n_similar[some], depth)
        done += len(some)
        if progress:
            progress(done, len(queries))
    retrieved = np.minimum(np.arange(1, depth + 1), n_allowed[:, None])  # there may be fewer than k to retrieve
    curves = np.cumsum(hits, axis=1) / retrieved
    curve, ceiling = curves.mean(axis=0), (np.minimum(retrieved, n_similar[:, None]) / retrieved).mean(axis=0)
    blocks = (ms[queries] - ms.min()) // block_ms
    low, high = _block_interval(np.column_stack([precision, curves]), blocks, seed)
    return WindowReport(
        precision=float(precision.mean()),
        recall=float(precision.mean()),
        precision_at={k: float(curve[min(k, depth) - 1]) for k in k_at},
        ceiling_at={k: float(ceiling[min(k, depth) - 1]) for k in k_at},
        chance=float((n_similar / n_allowed).mean()),
        ci95=(float(low[0]), float(high[0])),
        n_images=len(stamps),
        n_queries=len(queries),
        n_untimed=len(stamps) - len(timed),
        si_mean=float(n_similar.mean()),
        window_hours=window_ms / _HOUR_MS,
        exclude_within_hours=exclude_ms / _HOUR_MS,
        metric=metric,
        queries=timed[queries],
        query_precision=precision,
        query_similar=n_similar,
        curve=curve,
        curve_ci95=np.stack([low[1:], high[1:]]),
        ceiling=ceiling,
    )


def recall_at_k(found: Any, truth: Any) -> float:
    """Share of the true neighbours that were found, over all queries: the usual recall@k of an approximate index.

    ``found`` (n_queries, k) and ``truth`` (n_queries, k_true) hold integer ids, each at most once a row; -1 fills a
    row that is short, and never counts. Where several ids are equally near, ``truth`` must hold the ones wanted (the
    lowest, in fasthash). Raises ArgumentError where the shapes do not fit or ``truth`` is empty.
    """
    found, truth = np.asarray(found), np.asarray(truth)
    for name, ids in (("found", found), ("truth", truth)):
        if ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise ArgumentError(f"{name}: expected integers of shape (n_queries, k), got {ids.dtype} {ids.shape}")
    if len(found) != len(truth):
        raise ArgumentError(f"found: expected one row for each of {len(truth)} queries, got {len(found)}")
    wanted = int((truth >= 0).sum())
    if wanted == 0:
        raise ArgumentError("truth: expected at least one id that is not -1")
    hits = sum(int(((found == column[:, None]).any(axis=1) & (column >= 0)).sum()) for column in truth.T)
    return hits / wanted


@dataclass(frozen=True)
class _Protocol:
    """Frames up to ``half_ms`` from a query are similar; with ``exclude_ms``, those up to so far are taken out."""

    half_ms: int
    exclude_ms: int

    def count(self, ms: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of every frame as a query: how many frames are similar, and how many taken out, itself among them."""
        ordered = np.sort(ms)

        def within(reach: int) -> NDArray[np.int64]:
            last = np.searchsorted(ordered, ms + reach, side="right")
            return last - np.searchsorted(ordered, ms - reach, side="left")

        excluded = within(self.exclude_ms) if self.exclude_ms else np.ones(len(ms), np.int64)
        return np.maximum(within(self.half_ms) - excluded, 0), excluded

    def judge(
        self,
        found: NDArray[np.int64],
        queries: NDArray[np.int64],
        ms: NDArray[np.int64],
        n_similar: NDArray[np.int64],
        depth: int,
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """From the ranked neighbours of some queries, the precision of each, and which of its first few are similar.

        Neighbours that are taken out leave the ranking first; where it then ends early, False fills the row.
        """
        gap = np.abs(ms[found] - ms[queries, None])
        allowed = gap > self.exclude_ms if self.exclude_ms else found != queries[:, None]
        allowed_first = np.argsort(~allowed, axis=1, kind="stable")
        similar = np.take_along_axis(allowed & (gap <= self.half_ms), allowed_first, axis=1)
        hits = np.cumsum(similar, axis=1)[np.arange(len(queries)), n_similar - 1]
        return hits / n_similar, similar[:, :depth]


def _rank(
    rows: NDArray[Any], queries: NDArray[np.int64], needed: NDArray[np.int64], metric: str, num_threads: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Block by block, positions in ``queries`` and the nearest rows of each: as many as are ``needed``, or a few more.

    Queries that need about as many neighbours share a block, and the neighbours of a block fill some megabytes.
    """
    width = rows.shape[1]
    index = HammingIndex(8 * width) if metric == "hamming" else FlatIndex(width, metric)
    index.add(rows)
    order = np.argsort(needed, kind="stable")
    size = int(np.clip(2**20 // needed.max(), 1, 256))
    for start in range(0, len(order), size):
        block = order[start : start + size]
        yield block, index.search(rows[queries[block]], int(needed[block[-1]]), num_threads)[1]


def _block_interval(values: NDArray[np.float64], blocks: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """95 % percentile interval, shape (2, m), of the mean of ``values`` (n, m), whole blocks being drawn again.

    A resample's mean needs only each block's sum and size, and how often the block was drawn.
    """
    _, block, size = np.unique(blocks, return_inverse=True, return_counts=True)
    total = np.zeros((len(size), values.shape[1]))
    np.add.at(total, block, values)
    drawn = np.random.default_rng(seed).multinomial(len(size), np.full(len(size), 1 / len(size)), size=_RESAMPLES)
    means = (drawn @ total) / (drawn @ size)[:, None]
    return np.asarray(np.quantile(means, [0.025, 0.975], axis=0))


def _as_times(times: Any, n: int) -> NDArray[np.datetime64]:
    array = np.asarray(times)
    if array.shape != (n,):
        raise ArgumentError(f"times: expected one time for each of {n} hashes, got shape {array.shape}")
    if array.dtype.kind == "M":
        return array.astype("datetime64[ms]")
    if array.dtype.kind not in "UO":
        raise ArgumentError(f"times: expected datetime64 or ISO 8601 strings, got {array.dtype}")
    return np.array([parse_time("times", text) if text else NAT for text in array.tolist()], "datetime64[ms]")


def _as_milliseconds(name: str, value: Span) -> int:
    return int(as_span(name, value).astype(np.int64))
