"""How good is a ranking? The window protocol of the solar paper, with its chance level and its uncertainty.

No one has labelled a million magnetograms by likeness, but the Sun turns slowly: frames taken close in time look
alike. Grycuk and Scherer (section 3) therefore call the frames within 24 h either side of a query its *similar
images* (SI), retrieve as many frames as there are similar ones, and count how many of these are similar. What the
counts are called, how ties are dealt with and what the interval means is told in docs/evaluation.md.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._validation import as_codes, as_vectors, check_choice, check_int
from fasthash.errors import ArgumentError
from fasthash.hamming_index import HammingIndex
from fasthash.index import METRICS as VECTOR_METRICS
from fasthash.index import FlatIndex
from fasthash.times import NAT, Span, as_span, parse_time

METRICS = (*VECTOR_METRICS, "hamming")
WINDOWS = ("6h", "12h", "24h", "36h", "48h", "72h", "96h")
CADENCES = ("6min", "12min", "30min", "1h", "2h", "4h", "6h", "12h")
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
    n_copies : int
        Frames whose hash is that of another frame to the last bit. Where there are many, the archive holds the same
        picture several times, or the encoder tells different ones not apart.
    si_mean : float
        Similar images a query, on average.
    cadence_minutes : float
        Median time between a frame and the next one of another time.
    window_hours, exclude_within_hours, metric
        The protocol, as asked for.
    queries : int64 (n_queries,)
        Row of each query in the hashes given.
    query_similar : int64 (n_queries,)
        Similar images of each query.
    query_hits : float64 (n_queries,)
        How many of the retrieved are similar: a whole number, unless ties are cut.
    query_candidates : int64 (n_queries,)
        Frames that may be retrieved.
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
    n_copies: int
    si_mean: float
    cadence_minutes: float
    window_hours: float
    exclude_within_hours: float
    metric: str
    queries: NDArray[np.int64]
    query_similar: NDArray[np.int64]
    query_hits: NDArray[np.float64]
    query_candidates: NDArray[np.int64]
    curve: NDArray[np.float64]
    curve_ci95: NDArray[np.float64]
    ceiling: NDArray[np.float64]

    @property
    def query_precision(self) -> NDArray[np.float64]:
        """Precision, and so recall, of each query."""
        return self.query_hits / self.query_similar

    def counts(self) -> dict[str, NDArray[Any]]:
        """The paper's counts for each query, arrays (n_queries,); float64 where ties may be cut.

        SI: similar images. RI: retrieved images. PRI: retrieved and similar. FPRI: retrieved, not similar. PNRI:
        similar, not retrieved. FNRI: neither, rightly left out. (True and false positives, false and true negatives.)
        """
        similar, hits = self.query_similar, self.query_hits
        missed = similar - hits
        left = self.query_candidates - similar - missed
        return {"SI": similar, "RI": similar, "PRI": hits, "FPRI": missed, "PNRI": missed, "FNRI": left}

    def to_dict(self) -> dict[str, Any]:
        """The numbers without the arrays, ready for JSON; ``counts`` are means over the queries."""
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
            "n_copies": self.n_copies,
            "si_mean": self.si_mean,
            "counts": {name: float(values.mean()) for name, values in self.counts().items()},
            "cadence_minutes": self.cadence_minutes,
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

    Equally near frames have no order, least of all that of their rows, which in an archive is that of time: where only
    some of them are retrieved, the hits among them are counted as the mean over all orders.

    Parameters
    ----------
    hashes : float32 (n, d), or uint8 (n, n_bytes) codes in `numpy.packbits` order for ``metric="hamming"``
    times : datetime64 (n,) or ISO 8601 strings in UTC; NaT or "" where unknown. Kept to the millisecond.
    window, exclude_within : timedelta64, or text such as "48h", "90min", "2d", or a number of hours
        The window's full width (48 h is 24 h either side), and half the width of what is taken out of it. Both ends
        are inclusive; zero takes out the query alone, even where other frames have the very same time.
    metric : "l2", "cosine" or "hamming"
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
    frames = _Frames.check(hashes, times, metric)
    tally = _Tally(frames, *_as_protocol(window, exclude_within), k_at, depth, block)
    if not tally.is_query.any():
        exclude_ms = tally.protocol.exclude_ms
        beyond = f" and more than {exclude_ms / _HOUR_MS:g} h away" if exclude_ms else ""
        raise ArgumentError(f"window: no frame has another within {tally.window_ms / 2 / _HOUR_MS:g} h of it{beyond}")
    _judge_all(frames, [tally], num_threads, progress)
    return tally.report(seed)


def evaluate_windows(
    hashes: Any,
    times: Any,
    windows: Sequence[Span] = WINDOWS,
    exclude_within: Span = "0h",
    metric: str = "l2",
    *,
    k_at: Sequence[int] = (1, 10, 50),
    depth: int = 100,
    block: Span = "5d",
    seed: int = 0,
    num_threads: int = -1,
    progress: Callable[[int, int], None] | None = None,
) -> list[WindowReport]:
    """`evaluate_window` for several widths of the window, in one search; widths without any query are left out.

    Arguments and errors are those of `evaluate_window`. How precision falls as the window widens tells how fast the
    hashes forget; chance rises meanwhile.
    """
    frames = _Frames.check(hashes, times, metric)
    tallies = [_Tally(frames, *_as_protocol(window, exclude_within), k_at, depth, block) for window in windows]
    tallies = [tally for tally in tallies if tally.is_query.any()]
    _judge_all(frames, tallies, num_threads, progress)
    return [tally.report(seed) for tally in tallies]


def evaluate_cadences(
    hashes: Any, times: Any, cadences: Sequence[Span] = CADENCES, **protocol: Any
) -> list[WindowReport]:
    """`evaluate_window` of the series thinned to each of some cadences that are coarser than its own.

    ``protocol``: the other arguments of `evaluate_window`, with its errors. A cadence at which no query has a similar
    image is left out. The reports tell the cadence that came out (the median), which is what was asked where the
    series' own divides it.
    """
    stamps, reports = as_times(times, len(hashes)), []
    own = np.timedelta64(round(_cadence_ms(stamps[~np.isnat(stamps)].astype(np.int64))), "ms")
    for cadence in sorted(as_span("cadences", cadence) for cadence in cadences):
        kept = thin(stamps, cadence)
        if cadence > own and not _is_empty(stamps[kept], protocol):
            reports.append(evaluate_window(np.asarray(hashes)[kept], stamps[kept], **protocol))
    return reports


def thin(times: Any, cadence: Span) -> NDArray[np.int64]:
    """Rows of a series thinned to a cadence, in order of time: each kept frame is the first at least that much later.

    ``times``: as in `evaluate_window`; frames without a time are left out. A tenth of the series' own cadence counts as
    nothing, or a frame that comes a second early would cost a whole step.
    """
    stamps = as_times(times, len(times))
    order = np.argsort(stamps, kind="stable")[: int((~np.isnat(stamps)).sum())]
    ms = stamps[order].astype(np.int64)
    step = _as_milliseconds("cadence", cadence) - _cadence_ms(ms) / 10
    kept, row = [], 0
    while row < len(ms):
        kept.append(row)
        row = max(row + 1, int(np.searchsorted(ms, ms[row] + step)))
    return order[kept]


def distances_in_time(
    hashes: Any, times: Any, metric: str = "l2", reach: Span = "15d", *, n_pairs: int = 6000, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Hours between the frames of some pairs, with sign, and the distance of their hashes; both (at most n_pairs,).

    Pairs of one of up to 60 frames, evenly spread in time, with any other at most ``reach`` away, drawn by ``seed``.
    Raises ArgumentError as `evaluate_window` does, and where no two frames are within reach.
    """
    frames, reach_ms = _Frames.check(hashes, times, metric), _as_milliseconds("reach", reach)
    by_time = np.argsort(frames.ms, kind="stable")
    by_time = by_time[_Protocol(reach_ms, 0).count(frames.ms)[0][by_time] > 0]
    if len(by_time) == 0:
        raise ArgumentError(f"reach: no frame has another within {reach}")
    queries = by_time[np.unique(np.linspace(0, len(by_time) - 1, 60).astype(int))]
    distances, found = exact_index(frames.rows, metric).search(frames.rows[queries], len(frames.rows))
    gap = frames.ms[found] - frames.ms[queries, None]
    near = np.flatnonzero((np.abs(gap) <= reach_ms) & (found != queries[:, None]))
    if len(near) > n_pairs:
        near = np.random.default_rng(check_int("seed", seed, 0)).choice(near, n_pairs, replace=False)
    return gap.ravel()[near] / _HOUR_MS, distances.ravel()[near].astype(np.float64)


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
class _Frames:
    """The frames with a known time, checked: ``timed`` are their rows among all ``n_images``."""

    rows: NDArray[Any]
    ms: NDArray[np.int64]
    timed: NDArray[np.int64]
    n_images: int
    metric: str

    @classmethod
    def check(cls, hashes: Any, times: Any, metric: str) -> "_Frames":
        rows = as_rows(hashes, metric)
        stamps = as_times(times, len(rows))
        timed = np.flatnonzero(~np.isnat(stamps))
        if len(timed) < 2:
            got = f"{len(timed)} of {len(rows)}"
            raise ArgumentError(f"times: expected at least two frames with a known time, got {got}")
        return cls(rows[timed], stamps[timed].astype(np.int64), timed, len(rows), metric)

    def n_copies(self) -> int:
        return sum(count for count in Counter(row.tobytes() for row in self.rows).values() if count > 1)


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

    def hits(
        self,
        queries: NDArray[np.int64],
        distances: NDArray[Any],
        found: NDArray[np.int64],
        ms: NDArray[np.int64],
        k: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """From the ranked neighbours of some queries, how many similar frames the k nearest hold that may be retrieved.

        ``distances`` and ``found`` (n_queries, width) are ranked, and hold the whole group that ties for place k; ``k``
        and the hits are (n_queries, m).
        """
        gap = np.abs(ms[found] - ms[queries, None])
        allowed = gap > self.exclude_ms if self.exclude_ms else found != queries[:, None]
        similar = allowed & (gap <= self.half_ms)
        starts = np.ones(found.shape, bool)
        starts[:, 1:] = distances[:, 1:] != distances[:, :-1]
        group = np.cumsum(starts) - 1
        # Each of a group counts as the share of it that is similar: the mean over every order.
        share = np.bincount(group, similar.ravel()) / np.maximum(np.bincount(group, allowed.ravel()), 1)
        reached = np.cumsum(share[group].reshape(found.shape) * allowed, axis=1)
        row, place = np.nonzero(allowed)
        first = np.searchsorted(row, np.arange(len(queries)))[:, None]
        return np.take_along_axis(reached, place[first + k - 1], axis=1)


class _Tally:
    """What the queries of one protocol have come to so far; every array is by frame or by block of time."""

    def __init__(
        self, frames: _Frames, window_ms: int, exclude_ms: int, k_at: Sequence[int], depth: int, block: Span
    ) -> None:
        self.frames, self.window_ms, self.protocol = frames, window_ms, _Protocol(window_ms // 2, exclude_ms)
        self.k_at = [check_int("k_at", k, 1) for k in k_at]
        n = len(frames.ms)
        self.depth = min(max([check_int("depth", depth, 1), *self.k_at]), n - 1)
        block_ms = _as_milliseconds("block", block)
        if block_ms == 0:
            raise ArgumentError(f"block: expected more than 0, got {block!r}")
        self.n_similar, n_excluded = self.protocol.count(frames.ms)
        self.is_query = self.n_similar > 0
        self.n_candidates = n - n_excluded
        self.needed = np.minimum(np.maximum(self.n_similar, self.depth) + n_excluded, n) * self.is_query
        self.query_hits = np.zeros(n)
        _, self.block = np.unique((frames.ms - frames.ms.min()) // block_ms, return_inverse=True)
        # A bootstrap over blocks needs no more of their queries than sums: of precision, curve and ceiling.
        self.totals = np.zeros((self.block.max() + 1, 1 + 2 * self.depth))

    def add(self, queries: NDArray[np.int64], distances: NDArray[Any], found: NDArray[np.int64]) -> None:
        """Take in queries with their ranked neighbours, which hold all ties of the last place needed."""
        ours = self.is_query[queries]
        queries = queries[ours]
        similar = self.n_similar[queries]
        # There may be fewer than k to retrieve.
        retrieved = np.minimum(np.arange(1, self.depth + 1), self.n_candidates[queries, None])
        retrieved = np.column_stack([similar, retrieved])
        hits = self.protocol.hits(queries, distances[ours], found[ours], self.frames.ms, retrieved)
        self.query_hits[queries] = hits[:, 0]
        ceilings = np.minimum(retrieved[:, 1:], similar[:, None]) / retrieved[:, 1:]
        np.add.at(self.totals, self.block[queries], np.column_stack([hits / retrieved, ceilings]))

    def report(self, seed: int) -> WindowReport:
        queries, depth, frames = np.flatnonzero(self.is_query), self.depth, self.frames
        similar, candidates = self.n_similar[queries], self.n_candidates[queries]
        precision, *means = self.totals.sum(axis=0) / len(queries)
        curve, ceiling = np.array(means[:depth]), np.array(means[depth:])
        size = np.bincount(self.block[queries], minlength=len(self.totals))
        low, high = block_interval(self.totals[size > 0, : 1 + depth], size[size > 0], seed)
        return WindowReport(
            precision=float(precision),
            recall=float(precision),
            precision_at={k: float(curve[min(k, depth) - 1]) for k in self.k_at},
            ceiling_at={k: float(ceiling[min(k, depth) - 1]) for k in self.k_at},
            chance=float((similar / candidates).mean()),
            ci95=(float(low[0]), float(high[0])),
            n_images=frames.n_images,
            n_queries=len(queries),
            n_untimed=frames.n_images - len(frames.timed),
            n_copies=frames.n_copies(),
            si_mean=float(similar.mean()),
            cadence_minutes=_cadence_ms(frames.ms) / 60_000,
            window_hours=self.window_ms / _HOUR_MS,
            exclude_within_hours=self.protocol.exclude_ms / _HOUR_MS,
            metric=frames.metric,
            queries=frames.timed[queries],
            query_similar=similar,
            query_hits=self.query_hits[queries],
            query_candidates=candidates,
            curve=curve,
            curve_ci95=np.stack([low[1:], high[1:]]),
            ceiling=ceiling,
        )


def _judge_all(
    frames: _Frames, tallies: list[_Tally], num_threads: int, progress: Callable[[int, int], None] | None
) -> None:
    """One search for all tallies: each query sees as many neighbours as the most demanding of them needs."""
    if not tallies:
        return
    needed = np.max([tally.needed for tally in tallies], axis=0)
    queries, done = np.flatnonzero(needed), 0
    for some, distances, found in _rank(frames, queries, needed, num_threads):
        for tally in tallies:
            tally.add(some, distances, found)
        done += len(some)
        if progress and len(some):
            progress(done, len(queries))


def _rank(
    frames: _Frames, queries: NDArray[np.int64], needed: NDArray[np.int64], num_threads: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int64]]]:
    """Some queries at a time, and the distances and rows of their neighbours, with all ties of the last one needed.

    Queries whose ties go on beyond what was searched are searched again, for more. Those that need about as many
    neighbours share a search, whose results fill some megabytes.
    """
    index, n = exact_index(frames.rows, frames.metric), len(frames.rows)
    width = np.minimum(needed + 1, n)
    while len(queries):
        queries = queries[np.argsort(width[queries], kind="stable")]
        size = int(np.clip(2**20 // width[queries[-1]], 1, 256))
        again = []
        for start in range(0, len(queries), size):
            some = queries[start : start + size]
            distances, found = index.search(frames.rows[some], int(width[some[-1]]), num_threads)
            last = distances[np.arange(len(some)), needed[some] - 1]
            whole = (distances[:, -1] > last) | (found.shape[1] == n)
            yield some[whole], distances[whole], found[whole]
            again.append(some[~whole])
        queries, width = np.concatenate(again), np.minimum(2 * width, n)


def block_interval(totals: NDArray[np.float64], sizes: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """95 % percentile interval, shape (2, m), of means over values in blocks, whole blocks being drawn again.

    ``totals`` (n_blocks, m) are the sums of the values in each block, ``sizes`` (n_blocks,) how many they are.
    """
    rng = np.random.default_rng(check_int("seed", seed, 0))
    drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=_RESAMPLES)
    means = (drawn @ totals) / (drawn @ sizes)[:, None]
    return np.asarray(np.quantile(means, [0.025, 0.975], axis=0))


def _is_empty(stamps: NDArray[np.datetime64], protocol: dict[str, Any]) -> bool:
    window_ms, exclude_ms = _as_protocol(protocol.get("window", "48h"), protocol.get("exclude_within", "0h"))
    return not _Protocol(window_ms // 2, exclude_ms).count(stamps.astype(np.int64))[0].any()


def _as_protocol(window: Span, exclude_within: Span) -> tuple[int, int]:
    return _as_milliseconds("window", window), _as_milliseconds("exclude_within", exclude_within)


def _cadence_ms(ms: NDArray[np.int64]) -> float:
    gaps = np.diff(np.unique(ms))
    return float(np.median(gaps)) if len(gaps) else 0.0


def as_rows(hashes: Any, metric: str) -> NDArray[Any]:
    """What is compared by a metric, checked: float32 hashes (n, d), or for "hamming" uint8 codes (n, n_bytes)."""
    check_choice("metric", metric, METRICS)
    return as_codes("hashes", hashes) if metric == "hamming" else as_vectors("hashes", hashes)


def exact_index(rows: NDArray[Any], metric: str) -> FlatIndex | HammingIndex:
    """An exact index of the rows that `as_rows` gave."""
    width = rows.shape[1]
    index = HammingIndex(8 * width) if metric == "hamming" else FlatIndex(width, metric)
    index.add(rows)
    return index


def as_times(times: Any, n: int) -> NDArray[np.datetime64]:
    """One time for each of n hashes, datetime64[ms]: from datetime64, or ISO 8601 strings in UTC ("" is NaT)."""
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
