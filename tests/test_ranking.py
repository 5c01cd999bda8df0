"""Mean average precision with ties averaged: against every order of small cases, and random orders of larger ones."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fasthash as fh
from fasthash.ranking import (
    average_precision,
    evaluate_percentiles,
    evaluate_ranking,
    label_codes,
    vote,
)

VARIANTS = ((None, False), (100, False), (100, True))


def precision_of(relevant, top, of_retrieved):
    """Average precision of one ranking, as the paper and the published code have it."""
    relevant = np.asarray(relevant)
    seen = relevant[:top]
    total = (np.cumsum(seen) / np.arange(1, len(seen) + 1) * seen).sum()
    wanted = seen.sum() if of_retrieved else min(relevant.sum(), top or len(relevant))
    return total / wanted if wanted else 0.0


def orders(groups):
    """Every order of images in groups of equal distance: lists of 0 and 1."""
    if not groups:
        yield []
        return
    for head in permutations(groups[0]):
        for tail in orders(groups[1:]):
            yield [*head, *tail]


groups_of_images = st.lists(st.lists(st.integers(0, 1), max_size=4), min_size=1, max_size=4).filter(
    lambda groups: sum(len(group) for group in groups) <= 8
)


@given(groups_of_images, st.integers(1, 9), st.booleans())
def test_the_closed_form_is_the_mean_over_every_order(groups, top, of_retrieved):
    counts, positives = ([[f(group) for group in groups]] for f in (len, sum))
    for limit in (None, top):
        expected = np.mean([precision_of(order, limit, of_retrieved and limit) for order in orders(groups)])
        found = average_precision(counts, positives, limit, of_retrieved)
        np.testing.assert_allclose(found, [expected], atol=1e-12)


def test_large_groups_against_random_orders():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 90, (3, 9))
    positives = rng.binomial(counts, 0.3)
    for top, of_retrieved in VARIANTS:
        found = average_precision(counts, positives, top, of_retrieved)
        for n, p, value in zip(counts, positives, found, strict=True):
            groups = [np.arange(size) < relevant for size, relevant in zip(n, p, strict=True)]
            drawn = [
                precision_of(np.concatenate([rng.permutation(group) for group in groups]), top, of_retrieved)
                for _ in range(200)
            ]
            assert abs(np.mean(drawn) - value) < 5 * np.std(drawn) / 200**0.5 + 1e-9


def test_millions_of_images_lose_no_digits():
    # All of one group: rank i is relevant with probability p, whatever i is, so the precision there is p, too.
    counts, positives = [[10**7]], [[10**6]]
    harmonic = np.log(1e7) + np.euler_gamma
    expected = (0.1 * harmonic + 0.1 * (10**6 - 1) / (10**7 - 1) * (10**7 - harmonic)) / 10**6
    np.testing.assert_allclose(average_precision(counts, positives), expected, rtol=1e-9)
    np.testing.assert_allclose(average_precision(counts, counts, 100, True), 1, rtol=1e-6)
    np.testing.assert_allclose(average_precision(counts, counts, 100), 1, rtol=1e-6)


@pytest.fixture(scope="module")
def sets():
    """Codes of 13 bits and labels of 40 queries and 230 references, noisy copies of one code for each class."""
    rng = np.random.default_rng(1)
    centres = rng.integers(0, 2, (3, 13))

    def draw(n):
        classes = rng.choice(3, n, p=[0.5, 0.3, 0.2])
        bits = centres[classes] ^ (rng.random((n, 13)) < 0.2)
        return fh.pack_bits(bits.astype(np.uint8)), np.array(["Bent", "Compact", "FRI"])[classes]

    return *draw(40), *draw(230)


def test_a_report_is_the_mean_of_rankings_in_random_order(sets):
    asked, wanted, known, labels = sets
    report = evaluate_ranking(*sets, 13, k=5)
    rng = np.random.default_rng(2)
    distances = np.bitwise_count(asked[:, None] ^ known).sum(axis=2)
    drawn = np.empty((50, 40, 3))
    for i in range(50):
        shuffled = rng.permutation(230)
        for q in range(40):
            relevant = labels[shuffled[np.argsort(distances[q][shuffled], kind="stable")]] == wanted[q]
            drawn[i, q] = [precision_of(relevant, *variant) for variant in VARIANTS]
    np.testing.assert_allclose(report.scores.mean(axis=0), drawn.mean(axis=(0, 1)), atol=0.003)
    numbers = report.to_dict()
    assert numbers["map"] == report.map == pytest.approx(report.scores[:, 0].mean())
    assert (numbers["n_bits"], numbers["n_query"], numbers["n_reference"], numbers["n_unmatched"]) == (13, 40, 230, 0)
    assert numbers["chance"] < 0.6 < numbers["map"] < numbers["oracle"]["reference"] < numbers["oracle"]["both"] == 1
    assert numbers["ci95"][0] < numbers["map"] < numbers["ci95"][1]
    sizes = {name: part["n_query"] for name, part in numbers["per_class"].items()}
    assert sizes == {name: int((wanted == name).sum()) for name in ("Bent", "Compact", "FRI")}
    weighted = sum(sizes[name] * part["map"] for name, part in numbers["per_class"].items())
    assert weighted / 40 == pytest.approx(numbers["map"])
    assert np.sum(numbers["confusion"]) == 40
    assert np.trace(numbers["confusion"]) / 40 == numbers["knn_accuracy"] > 0.7


def test_the_order_of_rows_is_of_no_consequence(sets):
    asked, wanted, known, labels = sets
    turned = evaluate_ranking(asked[::-1], wanted[::-1], known[::-1], labels[::-1], 13)
    np.testing.assert_allclose(turned.scores[::-1], evaluate_ranking(*sets, 13).scores)
    np.testing.assert_array_equal(turned.confusion, evaluate_ranking(*sets, 13).confusion)


def test_one_code_for_everything_is_chance(sets):
    asked, wanted, known, labels = sets
    report = evaluate_ranking(asked * 0, wanted, known * 0, labels, 13)
    np.testing.assert_allclose(report.scores, report.chances)
    shares = {name: (labels == name).mean() for name in labels}
    np.testing.assert_allclose(report.chances[:, 2], [shares[name] for name in wanted], atol=0.06)
    assert report.oracle["both"] == pytest.approx(report.map)


def test_queries_without_their_class_are_left_out_and_told(sets):
    asked, wanted, known, labels = sets
    kept = labels != "FRI"
    report = evaluate_ranking(asked, wanted, known[kept], labels[kept], 13)
    assert report.n_unmatched == (wanted == "FRI").sum() > 0
    assert report.n_query == 40 - report.n_unmatched
    assert set(report.per_class()) == {"Bent", "Compact"}


def test_label_codes_are_the_majority_in_every_bit(sets):
    _, _, known, labels = sets
    bits, made = (fh.unpack_bits(codes, 13) for codes in (known, label_codes(known, labels, 13)))
    for name in np.unique(labels):
        np.testing.assert_array_equal(np.unique(made[labels == name], axis=0)[0], bits[labels == name].mean(0) >= 0.5)
        assert len(np.unique(made[labels == name], axis=0)) == 1


def test_votes_share_out_a_group_that_is_cut():
    counts = np.array([[[1, 4, 0], [0, 8, 0]], [[0, 4, 2], [1, 1, 0]], [[0, 0, 2], [0, 1, 1]]])
    np.testing.assert_array_equal(vote(counts, 2), [0, 1, 1])  # 4/3 to 2/3, 4/5 to 6/5, 2/3 to 4/3 votes
    np.testing.assert_array_equal(vote(counts, 13), [1, 0, 1])  # 5 to 8, 6 to 2, and 2 to 2, of which one is nearest


def test_percentiles_are_those_of_each_image():
    rng = np.random.default_rng(3)
    hashes = [rng.random((n, 8), np.float32) for n in (10, 30)]
    labels = [np.array(["Bent", "FRI"])[np.arange(n) % 2] for n in (10, 30)]
    reports = evaluate_percentiles(hashes[0], labels[0], hashes[1], labels[1], 8, (0, 30, 50))
    codes = [fh.binarize_percentile(each, 30) for each in hashes]
    assert reports[1].map == evaluate_ranking(codes[0], labels[0], codes[1], labels[1], 8).map
    assert reports[0].map == pytest.approx(reports[0].chance)  # every bit of every code is one
    assert len(reports) == 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"query_codes": np.zeros((40, 2), np.int32)}, "query_codes"),
        ({"reference_codes": np.zeros((230, 1), np.uint8)}, "reference_codes"),
        ({"reference_codes": np.full((230, 2), 255, np.uint8)}, "reference_codes: expected zero in the last 3 bits"),
        ({"query_labels": np.array(["x"] * 39)}, "query_labels: expected 40 strings"),
        ({"query_labels": np.array(["x"] * 40)}, "no query has an image of its class"),
        ({"reference_labels": np.array([""] * 230)}, "reference_labels: expected at least one"),
        ({"n_bits": 0}, "n_bits"),
        ({"k": 0}, "k"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments_are_named(sets, change, named):
    names = ("query_codes", "query_labels", "reference_codes", "reference_labels")
    good = dict(zip(names, sets, strict=True)) | {"n_bits": 13}
    with pytest.raises(fh.ArgumentError, match=named):
        evaluate_ranking(**(good | change))


@pytest.mark.parametrize(
    ("counts", "positives", "named"),
    [([1], [1], "counts"), ([[1.0]], [[1]], "counts"), ([[1]], [[1, 0]], "positives"), ([[1]], [[2]], "positives"),
     ([[1]], [[-1]], "positives")],
)  # fmt: skip
def test_counts_that_cannot_be_are_named(counts, positives, named):
    with pytest.raises(fh.ArgumentError, match=named):
        average_precision(counts, positives)
