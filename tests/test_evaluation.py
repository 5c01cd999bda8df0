import json
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import window_precisions

from fasthash.errors import ArgumentError
from fasthash.evaluation import (
    WindowReport,
    block_interval,
    distances_in_time,
    evaluate_cadences,
    evaluate_window,
    evaluate_windows,
    recall_at_k,
    thin,
)

START = np.datetime64("2014-02-25T00:00:00.000")
HOUR = np.timedelta64(3_600_000, "ms")


def every(hours, n):
    return START + np.arange(n) * hours * HOUR


def oracle_distances(hashes, metric):
    a, b = hashes[:, None], hashes[None]
    if metric == "hamming":
        return np.unpackbits(a ^ b, axis=2).sum(axis=2)
    a, b = a.astype(float), b.astype(float)
    if metric == "cosine":
        a, b = (x / np.sqrt((x**2).sum(axis=2, keepdims=True)) for x in (a, b))
        distances = ((a - b) ** 2).sum(axis=2) / 2
        return np.where(distances < 1e-20, 0, distances).astype(np.float32)  # parallel, but for rounding
    return np.sqrt(((a - b) ** 2).sum(axis=2)).astype(np.float32)


@st.composite
def archives(draw):
    """A few hashes with many ties, at irregular times in any order, some of them equal."""
    metric = draw(st.sampled_from(["l2", "cosine", "hamming"]))
    n, width = draw(st.integers(2, 24)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if metric == "hamming":
        hashes = rng.integers(0, draw(st.sampled_from([2, 256])), (n, width), dtype=np.uint8)
    else:
        # No zero vector; few values, so that distances tie; or many, so that they do not.
        hashes = rng.integers(1, draw(st.sampled_from([3, 1000])), (n, width)).astype(np.float32)
    hours = np.cumsum(rng.choice([0, 0.5, 2, 12, 24, 50], n))
    rng.shuffle(hours)
    return metric, hashes, hours


@settings(max_examples=150, deadline=None)
@given(archives(), st.sampled_from([1, 24, 48]), st.sampled_from([0, 0.5, 6, 12]), st.integers(1, 30))
def test_agrees_with_the_oracle(archive, window, exclude_within, depth):
    metric, hashes, hours = archive
    n = len(hashes)
    judged = window_precisions(oracle_distances(hashes, metric), hours, window, exclude_within, min(depth, n - 1))
    arguments = hashes, START + (hours * 3_600_000).astype("timedelta64[ms]"), window, exclude_within, metric
    if not judged:
        with pytest.raises(ArgumentError, match=r"^window: no frame"):
            evaluate_window(*arguments)
        return
    report = evaluate_window(*arguments, depth=depth, k_at=(1, depth))
    queries, hits, similar, candidates, curves = zip(*judged, strict=True)
    precisions = np.divide(hits, similar)
    np.testing.assert_array_equal(report.queries, queries)
    np.testing.assert_array_equal(report.query_similar, similar)
    np.testing.assert_array_equal(report.query_candidates, candidates)
    np.testing.assert_allclose(report.query_hits, hits, atol=1e-12)
    np.testing.assert_allclose(report.query_precision, precisions, atol=1e-12)
    np.testing.assert_allclose(report.curve, np.mean(curves, axis=0), atol=1e-12)
    np.testing.assert_allclose(report.chance, np.divide(similar, candidates).mean())
    assert report.precision == report.recall == pytest.approx(np.mean(precisions))
    assert report.precision_at == pytest.approx({1: report.curve[0], depth: report.curve[-1]})
    assert (report.n_queries, report.si_mean) == (len(judged), pytest.approx(np.mean(similar)))
    assert (report.curve <= report.ceiling + 1e-12).all()


@given(st.lists(st.integers(0, 3), min_size=3, max_size=5), st.sampled_from([0, 6]))
@settings(max_examples=40, deadline=None)
def test_ties_are_the_mean_over_every_order_of_the_rows(codes, exclude_within):
    codes, hours = np.array(codes, np.uint8)[:, None], np.array([0, 8, 20, 30, 52])[: len(codes)]
    report = evaluate_window(codes, START + hours * HOUR, exclude_within=exclude_within, metric="hamming")
    distances, hits = oracle_distances(codes, "hamming"), np.zeros(len(codes))
    for order in permutations(range(len(codes))):
        for query in report.queries:
            apart = np.abs(hours - hours[query])
            allowed = [row for row in order if row != query and (exclude_within == 0 or apart[row] > exclude_within)]
            nearest = sorted(allowed, key=lambda row: distances[query, row])[: (apart[allowed] <= 24).sum()]
            hits[query] += (apart[nearest] <= 24).mean()
    orders = len(list(permutations(range(len(codes)))))
    np.testing.assert_allclose(report.query_precision, hits[report.queries] / orders, atol=1e-12)


@pytest.mark.parametrize("metric", ["l2", "cosine", "hamming"])
def test_hashes_that_are_all_the_same_are_at_chance_exactly(metric):
    hashes = np.ones((700, 2), np.uint8 if metric == "hamming" else np.float32)
    report = evaluate_window(hashes, every(2, 700), metric=metric)
    np.testing.assert_allclose(report.query_precision, report.query_similar / 699)
    np.testing.assert_allclose(report.curve, report.chance)
    assert report.n_copies == 700


def test_the_counts_are_those_of_the_sets():
    rng = np.random.default_rng(6)
    hashes, hours = rng.normal(size=(40, 2)).astype(np.float32), np.arange(40) * 5
    report = evaluate_window(hashes, START + hours * HOUR, exclude_within=6)
    counts, distances = report.counts(), oracle_distances(hashes, "l2")
    for place, query in enumerate(report.queries):
        apart = np.abs(hours - hours[query])
        everything = set(np.flatnonzero(apart > 6))
        similar = {row for row in everything if apart[row] <= 24}
        retrieved = set(sorted(everything, key=lambda row: distances[query, row])[: len(similar)])
        assert {name: values[place] for name, values in counts.items()} == {
            "SI": len(similar),
            "RI": len(retrieved),
            "PRI": len(retrieved & similar),
            "FPRI": len(retrieved - similar),
            "PNRI": len(similar - retrieved),
            "FNRI": len(everything - similar - retrieved),
        }
    assert report.to_dict()["counts"] == pytest.approx({name: values.mean() for name, values in counts.items()})
    np.testing.assert_allclose(counts["PRI"] / (counts["PRI"] + counts["FPRI"]), report.query_precision)


@pytest.mark.parametrize("metric", ["l2", "hamming"])
def test_several_windows_are_as_good_as_one_by_one(metric):
    rng = np.random.default_rng(7)
    hashes = rng.integers(0, 4, (90, 2), dtype=np.uint8)
    hashes = hashes if metric == "hamming" else hashes.astype(np.float32)
    windows = ["2h", "96h", "12h", "36h"]  # no other frame is within an hour
    reports = evaluate_windows(hashes, every(3, 90), windows, "3h", metric, depth=20)
    assert [report.window_hours for report in reports] == [96, 12, 36]
    for report in reports:
        alone = evaluate_window(hashes, every(3, 90), report.window_hours, "3h", metric, depth=20)
        assert report.to_dict() == alone.to_dict()
        np.testing.assert_array_equal(report.query_hits, alone.query_hits)
        np.testing.assert_array_equal(report.curve_ci95, alone.curve_ci95)
    assert evaluate_windows(hashes, every(3, 90), ["2h"], "3h", metric) == []


def test_cadences_are_those_of_thinner_series():
    rng = np.random.default_rng(8)
    hashes, times = np.cumsum(rng.normal(size=(240, 3)), axis=0).astype(np.float32), every(2, 240)
    order = rng.permutation(240)
    reports = evaluate_cadences(hashes[order], times[order], ["12h", "6min", "2h", "6h", "50h"], exclude_within=2)
    assert [report.cadence_minutes for report in reports] == [360, 720]  # 2 h is the series', and 50 h have no window
    for step, report in zip([3, 6], reports, strict=True):
        alone = evaluate_window(hashes[::step], times[::step], exclude_within=2)
        assert report.to_dict() == {
            key: pytest.approx(value) if isinstance(value, (float, list, dict)) else value
            for key, value in alone.to_dict().items()
        }


@given(st.lists(st.sampled_from([0, 1, 2, 3, 40]), min_size=1, max_size=40), st.integers(0, 12))
def test_thinning_keeps_frames_at_least_a_cadence_apart_and_no_fewer(gaps, cadence):
    hours = np.cumsum([0, *gaps])
    shuffled = np.random.default_rng(len(gaps)).permutation(len(hours))
    times = (START + hours * HOUR)[shuffled]
    kept = thin(np.append(times, np.datetime64("NaT")), cadence)
    chosen = (times[kept] - START) / HOUR
    step = cadence - np.median(np.diff(np.unique(hours)) if np.ptp(hours) else 0) / 10
    assert chosen[0] == 0
    assert (np.diff(chosen) >= step).all()
    for dropped in np.setdiff1d(np.arange(len(times)), kept):
        gap = (times[dropped] - START) / HOUR - chosen
        assert ((gap >= 0) & (gap < step)).any()


def test_thinning_forgives_what_comes_a_little_early():
    jitter = np.random.default_rng(9).integers(-1000, 1001, 100).astype("timedelta64[ms]")
    kept = thin(every(0.2, 100) + jitter, "1h")
    np.testing.assert_array_equal(kept, np.arange(0, 100, 5))


def test_distances_in_time_are_those_of_pairs_within_reach():
    hashes = np.arange(300, dtype=np.float32)[:, None]
    hours, distances = distances_in_time(hashes, every(2, 300), reach="3d", n_pairs=500)
    assert len(hours) == 500
    np.testing.assert_array_equal(distances, np.abs(hours) / 2)
    assert (np.abs(hours) <= 72).all()
    assert (hours != 0).all()
    hours, distances = distances_in_time(np.packbits(np.eye(8, dtype=bool), axis=1), every(2, 8), "hamming")
    assert sorted(hours) == sorted(2.0 * (i - j) for i in range(8) for j in range(8) if i != j)
    assert set(distances) == {2}
    # The only two frames that are near each other are found among many that are far from all.
    sparse = np.append(every(24 * 20, 200), START + HOUR)
    hours, distances = distances_in_time(np.arange(201, dtype=np.float32)[:, None], sparse)
    assert sorted(zip(hours, distances, strict=True)) == [(-1, 200), (1, 200)]
    with pytest.raises(ArgumentError, match="reach: no frame has another within 5min"):
        distances_in_time(np.zeros((201, 1), np.float32), sparse, reach="5min")


@pytest.mark.parametrize("exclude_within", [0, 6])
def test_a_perfect_embedding_reaches_one_and_every_ceiling(exclude_within):
    times = every(2, 300)
    hashes = np.arange(300, dtype=np.float32)[:, None]
    report = evaluate_window(hashes, times, exclude_within=exclude_within)
    assert report.precision == 1
    assert report.ci95 == pytest.approx((1, 1))
    # 12 frames either side, of which those at 2, 4 and 6 h go; at the ends of the archive one side has fewer.
    assert report.query_similar.max() == (24 if exclude_within == 0 else 18)
    assert report.query_similar[0] == (12 if exclude_within == 0 else 9)
    # Equally near frames before and after enter in pairs, and past the window none is left to find.
    np.testing.assert_allclose(report.curve, report.ceiling)
    assert report.precision_at[50] == pytest.approx(report.query_similar.mean() / 50)
    assert report.ceiling_at[1] == 1


@pytest.mark.parametrize("metric", ["l2", "cosine", "hamming"])
def test_random_hashes_are_at_chance(metric):
    rng = np.random.default_rng(4)
    hashes = rng.integers(0, 256, (1000, 8), dtype=np.uint8) if metric == "hamming" else rng.normal(size=(1000, 8))
    hashes = hashes if metric == "hamming" else hashes.astype(np.float32)
    report = evaluate_window(hashes, every(2, 1000), metric=metric)
    assert report.chance == pytest.approx(24 / 999, rel=0.02)
    assert report.ci95[0] <= report.chance <= report.ci95[1]
    assert report.precision == pytest.approx(report.chance, rel=0.1)


def test_the_window_is_half_on_either_side_and_inclusive():
    hashes = np.array([[0], [1], [2]], np.float32)
    times = np.array(["2014-01-01T00:00:00.000", "2014-01-02T00:00:00.000", "2014-01-03T00:00:00.001"])
    report = evaluate_window(hashes, times, 48)
    np.testing.assert_array_equal(report.queries, [0, 1])  # 24 h is inside, a millisecond more is not
    with pytest.raises(ArgumentError, match=r"no frame has another within 23\.5 h of it"):
        evaluate_window(hashes, times, 47)
    with pytest.raises(ArgumentError, match="more than 24 h away"):
        evaluate_window(hashes, times, 48, exclude_within=24)


def test_zero_exclusion_takes_out_the_query_alone():
    hashes = np.zeros((3, 2), np.float32)
    times = every(0, 3)
    assert evaluate_window(hashes, times).si_mean == 2
    with pytest.raises(ArgumentError):
        evaluate_window(hashes, times, exclude_within=0.001)


def test_float32_resolution_does_not_decide_between_near_hashes():
    # Squares and products in float32 would call all of these distances zero.
    hashes = (1000 + np.arange(60, dtype=np.float32)[:, None] / 1024) * np.ones((1, 50), np.float32)
    assert evaluate_window(hashes, every(2, 60)).precision == 1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_order_of_the_frames_is_of_no_matter(seed):
    rng = np.random.default_rng(seed)
    hashes, times = rng.normal(size=(80, 3)).astype(np.float32), every(3, 80)
    order = rng.permutation(80)
    straight, shuffled = evaluate_window(hashes, times), evaluate_window(hashes[order], times[order])
    assert shuffled.to_dict() == {
        key: pytest.approx(value) if isinstance(value, (float, list, dict)) else value
        for key, value in straight.to_dict().items()
    }
    np.testing.assert_array_equal(shuffled.query_precision, straight.query_precision[order])


def test_the_interval_is_reproducible_and_knows_that_frames_are_not_independent():
    rng = np.random.default_rng(1)
    hashes = np.cumsum(rng.normal(size=(1500, 4)), axis=0).astype(np.float32)
    times = every(2, 1500)
    report, again, other = (evaluate_window(hashes, times, seed=seed) for seed in (0, 0, 1))
    assert report.ci95 == again.ci95 != other.ci95
    assert report.ci95[0] < report.precision < report.ci95[1]
    assert (report.curve_ci95[0] <= report.curve).all()
    assert (report.curve <= report.curve_ci95[1]).all()
    by_frame = evaluate_window(hashes, times, block="1h")
    assert np.ptp(report.ci95) > 2 * np.ptp(by_frame.ci95)


def test_the_interval_over_blocks_is_the_normal_one_where_blocks_are_many():
    rng = np.random.default_rng(3)
    sizes = np.full(400, 7)
    means = rng.normal(0.5, 0.1, 400)
    low, high = block_interval((means * sizes)[:, None], sizes, seed=0)[:, 0]
    half = 1.96 * means.std() / np.sqrt(400)
    assert (low, high) == pytest.approx((means.mean() - half, means.mean() + half), abs=0.15 * half)
    # A block weighs as much as it holds: one hit in one frame, none in nine.
    low, high = block_interval(np.tile([1.0, 0.0], 200)[:, None], np.tile([1, 9], 200), seed=0)[:, 0]
    assert 0.08 < low < 0.1 < high < 0.12


def test_one_block_gives_an_interval_without_width():
    rng = np.random.default_rng(1)
    report = evaluate_window(rng.normal(size=(30, 4)).astype(np.float32), every(2, 30))
    assert report.ci95 == pytest.approx((report.precision, report.precision))


def test_times_may_be_strings_and_missing():
    rng = np.random.default_rng(2)
    hashes, times = rng.normal(size=(50, 3)).astype(np.float32), every(2, 50)
    texts = [str(time) + "Z" * (row % 2) for row, time in enumerate(times)]
    texts[3] = texts[30] = ""
    missing = times.astype("datetime64[s]")
    missing[[3, 30]] = np.datetime64("NaT", "ms")
    known = np.delete(np.arange(50), [3, 30])
    reports = [
        evaluate_window(hashes, texts),
        evaluate_window(hashes, np.array(texts)),
        evaluate_window(hashes, missing),
        evaluate_window(hashes[known], times[known]),
    ]
    assert [report.n_untimed for report in reports] == [2, 2, 2, 0]
    for report in reports:
        assert report.precision == reports[-1].precision
        assert report.ci95 == reports[-1].ci95
    np.testing.assert_array_equal(reports[0].queries, known)


def test_spans_may_be_numbers_text_and_timedeltas():
    rng = np.random.default_rng(2)
    hashes, times = rng.normal(size=(50, 3)).astype(np.float32), every(2, 50)
    reports = [
        evaluate_window(hashes, times, 36, 6.0),
        evaluate_window(hashes, times, "1.5d", "360min"),
        evaluate_window(hashes, times, np.timedelta64(36, "h"), np.timedelta64(360, "m")),
    ]
    assert reports[0].to_dict() == reports[1].to_dict() == reports[2].to_dict()


def test_the_dictionary_is_the_json_promised():
    rng = np.random.default_rng(2)
    report = evaluate_window(rng.normal(size=(30, 3)).astype(np.float32), every(2, 30), exclude_within=6)
    assert isinstance(report, WindowReport)
    found = json.loads(json.dumps(report.to_dict()))
    assert set(found) >= {"precision", "recall", "precision_at", "chance", "ci95", "n_queries", "si_mean"}
    assert list(found["precision_at"]) == list(found["ceiling_at"]) == ["1", "10", "50"]
    assert (found["window_hours"], found["exclude_within_hours"], found["metric"]) == (48, 6, "l2")
    assert len(found["ci95"]) == 2


def test_progress_ends_at_the_end():
    calls = []
    evaluate_window(np.eye(30, dtype=np.float32), every(2, 30), progress=lambda *call: calls.append(call))
    assert calls[-1] == (30, 30)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


GOOD = np.eye(4, dtype=np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hashes": np.where(GOOD == 1, np.nan, GOOD)}, "hashes: row 0 holds NaN"),
        ({"hashes": GOOD.astype(float)}, "hashes: expected dtype float32, got float64"),
        ({"metric": "hamming"}, "hashes: expected dtype uint8, got float32"),
        ({"metric": "l1"}, "metric: expected one of l2, cosine, hamming, got 'l1'"),
        ({"times": every(2, 3)}, "times: expected one time for each of 4 hashes"),
        ({"times": np.arange(4)}, "times: expected datetime64 or ISO 8601 strings, got int64"),
        ({"times": ["2014-01-01", "", "soon", ""]}, "times: expected a time such as"),
        ({"times": ["2014-01-01", "", "", ""]}, "times: expected at least two frames with a known time, got 1 of 4"),
        ({"window": -1}, "window: expected a length of time such as 48h"),
        ({"window": float("nan")}, "window: expected a length of time such as 48h"),
        ({"window": np.timedelta64("NaT", "ms")}, "window: expected at least 0"),
        ({"exclude_within": "6 parsecs"}, "exclude_within: expected a length of time such as 48h"),
        ({"exclude_within": np.timedelta64(-1, "h")}, "exclude_within: expected at least 0"),
        ({"k_at": (0,)}, "k_at: expected an integer at least 1, got 0"),
        ({"depth": 2.5}, "depth: expected an integer, got 2.5"),
        ({"block": "0h"}, "block: expected more than 0, got '0h'"),
        ({"seed": -1}, "seed: expected an integer at least 0, got -1"),
    ],
)
def test_a_wrong_argument_is_named(change, message):
    with pytest.raises(ArgumentError) as caught:
        evaluate_window(**{"hashes": GOOD, "times": every(2, 4), **change})
    assert message in str(caught.value)


def test_recall_at_k():
    truth = np.array([[0, 1, 2], [3, 4, 5]])
    assert recall_at_k(truth, truth) == 1
    assert recall_at_k(truth[:, ::-1], truth) == 1
    assert recall_at_k([[0, 9, 2], [9, 9, 9]], truth) == pytest.approx(2 / 6)
    assert recall_at_k([[0, 1, 2, 3], [5, 6, 7, 8]], truth) == pytest.approx(4 / 6)
    # A row of an archive with two vectors: what is not there cannot be missed, nor found.
    assert recall_at_k([[0, -1, -1]], [[0, 1, -1]]) == 0.5


@pytest.mark.parametrize(
    ("found", "truth"),
    [([0, 1], [[0, 1]]), ([[0.0]], [[0]]), ([[0]], [[0], [1]]), ([[0]], [[-1]]), (np.zeros((2, 0), int), [[-1], [-1]])],
)
def test_recall_at_k_names_what_is_wrong(found, truth):
    with pytest.raises(ArgumentError, match=r"^(found|truth): expected"):
        recall_at_k(found, truth)
