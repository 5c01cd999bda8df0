"""Which class does an image belong to? The k nearest hashes of known class vote (Grycuk and Scherer, conclusions).

The hashes were not trained for any classification; that their neighbours still tell classes apart is what is tested.
"""

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._validation import check_choice, check_int
from fasthash.errors import ArgumentError, ReadError
from fasthash.evaluation import METRICS, as_rows, as_times, block_interval, exact_index
from fasthash.hamming_index import HammingIndex
from fasthash.index import FlatIndex
from fasthash.times import Span, as_span


class KNNClassifier:
    """The class of a hash by majority vote among its k nearest neighbours of known class.

    Where several classes have the most votes, the one whose nearest voter is nearest wins. Neighbours are exact and in
    order of (distance, row), so a prediction is the same on every host.

    Parameters
    ----------
    k : int, at least 1
        Voters; where fewer hashes are known, all of them vote.
    metric : "l2" or "cosine" for float hashes, "hamming" for codes
    """

    def __init__(self, k: int = 10, metric: str = "l2") -> None:
        self.k = check_int("k", k, 1)
        self.metric = check_choice("metric", metric, METRICS)
        self.classes: NDArray[np.str_] = np.empty(0, np.str_)
        self._index: FlatIndex | HammingIndex | None = None
        self._class_of: NDArray[np.int64] = np.empty(0, np.int64)

    def fit(self, hashes: Any, labels: Any) -> "KNNClassifier":
        """Take known hashes in place of any earlier ones; returns the classifier itself.

        hashes: float32 (n, d), finite, or uint8 (n, n_bytes) codes; labels: n strings, none empty. Sets ``classes``,
        the distinct labels in order. Raises ArgumentError where a type, shape or label does not fit.
        """
        rows, names = as_rows(hashes, self.metric), _as_labels(labels, hashes)
        if len(rows) == 0:
            raise ArgumentError("hashes: expected at least one, got none")
        if (names == "").any():
            raise ArgumentError(f"labels: row {np.flatnonzero(names == '')[0]} has no label")
        self._index = exact_index(rows, self.metric)
        self.classes, self._class_of = np.unique(names, return_inverse=True)
        return self

    def votes(self, hashes: Any, num_threads: int = -1) -> NDArray[np.int64]:
        """Votes for each of ``classes``, int64 (n, n_classes); arguments and errors are those of :meth:`predict`."""
        return self._vote(hashes, num_threads)[0]

    def predict(self, hashes: Any, num_threads: int = -1) -> NDArray[np.str_]:
        """The label of each hash, strings (n,).

        hashes: as :meth:`fit` took them. Raises ArgumentError where their type or width is another, or before `fit`.
        """
        votes, first = self._vote(hashes, num_threads)
        leading = votes == votes.max(axis=1, keepdims=True)
        return self.classes[np.where(leading, first, len(self._class_of)).argmin(axis=1)]

    def _vote(self, hashes: Any, num_threads: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Votes for each class, and the place of its nearest voter (behind all where it has none): (n, n_classes)."""
        if self._index is None:
            raise ArgumentError("hashes: nothing to compare them with; fit the classifier first")
        _, found = self._index.search(hashes, self.k, num_threads)
        voted = self._class_of[found][:, :, np.newaxis] == np.arange(len(self.classes))
        return voted.sum(axis=1), np.where(voted.any(axis=1), voted.argmax(axis=1), len(self._class_of))


@dataclass(frozen=True, eq=False)
class ClassReport:
    """What `evaluate_classes` found.

    Attributes
    ----------
    accuracy, ci95 : float, tuple of float
        Share of the tested frames whose class was predicted, and its 95 % interval by blocks of time.
    chance : float
        Accuracy of the best constant answer: the share of the most frequent class among the frames tested.
    calendar : float
        Accuracy of the same classifier on the times instead of the hashes: what the season of the solar cycle tells.
    balanced_accuracy : float
        Mean over the classes tested of the share predicted rightly; a constant answer has one over their number.
    classes : strings (n_classes,)
    confusion : int64 (n_classes, n_classes)
        Frames of the row's class that were taken for the column's.
    n_images, n_tested, n_blocks : int
        All frames given; those tested, which have a time, a label, and frames to learn from; blocks of time.
    k, metric, block_hours, gap_hours
        The protocol, as asked for.
    """

    accuracy: float
    ci95: tuple[float, float]
    chance: float
    calendar: float
    balanced_accuracy: float
    classes: NDArray[np.str_]
    confusion: NDArray[np.int64]
    n_images: int
    n_tested: int
    n_blocks: int
    k: int
    metric: str
    block_hours: float
    gap_hours: float

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        arrays = {"classes": self.classes.tolist(), "confusion": self.confusion.tolist(), "ci95": list(self.ci95)}
        return vars(self) | arrays


def evaluate_classes(
    hashes: Any,
    labels: Any,
    times: Any,
    k: int = 10,
    metric: str = "l2",
    *,
    block: Span = "28d",
    gap: Span = "14d",
    seed: int = 0,
    num_threads: int = -1,
) -> ClassReport:
    """Accuracy of `KNNClassifier` on blocks of time that it has not seen.

    Time is cut into blocks. The frames of each are tested in turn against all frames of other blocks that are at least
    ``gap`` away from the block's first and last frame: next to the cut, the same Sun would stand on both sides.
    Frames without a time or a label are left out.

    Parameters
    ----------
    hashes : float32 (n, d), or uint8 (n, n_bytes) codes for ``metric="hamming"``
    labels : n strings, "" where unknown
    times : datetime64 (n,) or ISO 8601 strings in UTC; NaT or "" where unknown
    k, metric : of the classifier
    block, gap : timedelta64, or text such as "28d", or a number of hours
        By default about a solar rotation, and half of one, after which the visible disk is another.
    seed : int
        Of the bootstrap over the blocks, as in `evaluate_window`: few blocks give an interval that is too narrow.
    num_threads : int
        -1: one for each core.

    Raises
    ------
    ArgumentError
        Where an argument has the wrong type, shape or value, where there are fewer than two classes, or where no block
        has frames to learn from.
    """
    rows, names = as_rows(hashes, metric), _as_labels(labels, hashes)
    stamps, n_images = as_times(times, len(rows)), len(rows)
    block_span, gap_span = as_span("block", block), as_span("gap", gap)
    block_hours, gap_hours = (float(span / np.timedelta64(1, "h")) for span in (block_span, gap_span))
    if block_hours == 0:
        raise ArgumentError("block: expected more than 0, got 0 h")
    usable = np.flatnonzero(~np.isnat(stamps) & (names != ""))
    rows, names, stamps = rows[usable], names[usable], stamps[usable]
    classes, truth = np.unique(names, return_inverse=True)
    if len(classes) < 2:
        raise ArgumentError(f"labels: expected at least two classes among frames with a time, got {len(classes)}")
    blocks = (stamps - stamps.min()) // block_span
    hours = ((stamps - stamps.min()) / np.timedelta64(1, "h")).astype(np.float32)
    predicted, by_time = (
        _predict_blocks(KNNClassifier(k, how), which, truth, stamps, blocks, gap_span, num_threads)
        for which, how in ((rows, metric), (hours[:, np.newaxis], "l2"))
    )
    tested = np.flatnonzero(predicted >= 0)
    if len(tested) == 0:
        far = f"at least {gap_hours:g} h away from it"
        raise ArgumentError(f"gap: no block of {block_hours:g} h has frames {far} to learn from")
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (truth[tested], predicted[tested]), 1)
    seen, right = confusion.sum(axis=1), np.diag(confusion)
    _, place, size = np.unique(blocks[tested], return_inverse=True, return_counts=True)
    per_block = np.bincount(place, truth[tested] == predicted[tested])
    low, high = block_interval(per_block[:, np.newaxis].astype(np.float64), size, seed)[:, 0]
    return ClassReport(
        accuracy=float(right.sum() / len(tested)),
        ci95=(float(low), float(high)),
        chance=float(seen.max() / len(tested)),
        calendar=float((by_time[tested] == truth[tested]).mean()),
        balanced_accuracy=float((right[seen > 0] / seen[seen > 0]).mean()),
        classes=classes,
        confusion=confusion,
        n_images=n_images,
        n_tested=len(tested),
        n_blocks=len(size),
        k=int(k),
        metric=metric,
        block_hours=block_hours,
        gap_hours=gap_hours,
    )


def _predict_blocks(
    classifier: KNNClassifier,
    rows: NDArray[Any],
    truth: NDArray[np.int64],
    stamps: NDArray[np.datetime64],
    blocks: NDArray[np.int64],
    gap: np.timedelta64,
    num_threads: int,
) -> NDArray[np.int64]:
    """The number of the class predicted for each row from other blocks; -1 where these hold nothing far enough away."""
    names, predicted = truth.astype(np.str_), np.full(len(rows), -1)
    for number in np.unique(blocks):
        test = np.flatnonzero(blocks == number)
        first, last = stamps[test].min(), stamps[test].max()
        away = (stamps <= first - gap) | (stamps >= last + gap)
        learn = np.flatnonzero(away & (blocks != number))
        if len(learn):
            classifier.fit(rows[learn], names[learn])
            predicted[test] = classifier.predict(rows[test], num_threads).astype(np.int64)
    return predicted


def read_labels(path: str | os.PathLike[str]) -> dict[str, str]:
    """Labels by absolute path from a CSV file with the columns ``path`` and ``label``; others are passed over.

    Relative paths start at the working folder. Raises ReadError, naming the file, where it cannot be read as such, or
    a line has no path, or a path two labels.
    """
    labels: dict[str, str] = {}
    try:
        # Spreadsheets put a byte order mark before the first column's name.
        with Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            table = csv.DictReader(file)
            if not {"path", "label"} <= set(table.fieldnames or ()):
                raise ReadError(f"{path}: expected a first line with the columns path and label")
            for row in table:
                name, label = row["path"] or "", row["label"] or ""  # a short line has None
                if not name:
                    raise ReadError(f"{path}: line {table.line_num}: no path")
                if labels.setdefault(os.path.abspath(name), label) != label:
                    raise ReadError(f"{path}: line {table.line_num}: {name} has two labels")
    except OSError as error:
        raise ReadError(f"{path}: {error.strerror}") from error
    except csv.Error as error:
        raise ReadError(f"{path}: not a table of comma-separated values: {error}") from error
    return labels


def _as_labels(labels: Any, hashes: Any) -> NDArray[np.str_]:
    names, n = np.asarray(labels), len(np.atleast_2d(hashes))
    if names.dtype.kind != "U" or names.shape != (n,):
        raise ArgumentError(f"labels: expected {n} strings, one for each hash, got {names.dtype} {names.shape}")
    return names
