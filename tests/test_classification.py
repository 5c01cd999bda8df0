import csv
import json
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import run
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import hamming_distances, knn_votes, vector_distances

from fasthash.classification import ClassReport, KNNClassifier, evaluate_classes, read_labels
from fasthash.cli import main
from fasthash.errors import ArgumentError, ReadError

DAY = np.timedelta64(1, "D")
START = np.datetime64("2014-01-01T00:00:00.000")
EXAMPLE = Path(__file__).parents[1] / "examples" / "flux_classes.py"


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["l2", "cosine", "hamming"]),
    st.integers(1, 30),
    st.integers(1, 4),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
)
def test_agrees_with_the_oracle(metric, n, n_classes, k, seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(["bent", "compact", "FRI", "FRII"][:n_classes], n)
    if metric == "hamming":
        known, queries = rng.integers(0, 4, (n, 1), dtype=np.uint8), rng.integers(0, 4, (9, 1), dtype=np.uint8)
        distances = hamming_distances(queries, known)
    else:
        known, queries = (rng.integers(0, 4, (m, 3)).astype(np.float32) for m in (n, 9))
        distances = vector_distances(queries, known, metric)
    classifier = KNNClassifier(k, metric).fit(known, labels)
    assert classifier.predict(queries).tolist() == [knn_votes(row, labels.tolist(), k) for row in distances]
    votes = classifier.votes(queries)
    assert votes.shape == (9, len(classifier.classes))
    assert (votes.sum(axis=1) == min(k, n)).all()
    assert classifier.classes.tolist() == sorted(set(labels.tolist()))


def test_one_neighbour_knows_its_own_class():
    hashes = np.arange(20, dtype=np.float32)[:, None]
    labels = np.where(np.arange(20) % 2, "odd", "even")
    assert KNNClassifier(1).fit(hashes, labels).predict(hashes).tolist() == labels.tolist()


def test_a_tie_goes_to_the_nearest_voter():
    classifier = KNNClassifier(4).fit(np.array([[0], [1], [2], [3]], np.float32), np.array(["b", "a", "a", "b"]))
    assert classifier.predict(np.array([[-1], [4], [0.9]], np.float32)).tolist() == ["b", "b", "a"]


def test_fit_replaces_what_was_known():
    classifier = KNNClassifier(1).fit(np.eye(2, dtype=np.float32), np.array(["a", "b"]))
    classifier.fit(np.zeros((1, 3), np.float32), np.array(["c"]))
    assert classifier.predict(np.ones((2, 3), np.float32)).tolist() == ["c", "c"]


GOOD = np.eye(4, dtype=np.float32)
LABELS = np.array(["a", "a", "b", "b"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: KNNClassifier(0), "k: expected an integer at least 1, got 0"),
        (lambda: KNNClassifier(3, "l1"), "metric: expected one of l2, cosine, hamming, got 'l1'"),
        (lambda: KNNClassifier().predict(GOOD), "fit the classifier first"),
        (lambda: KNNClassifier().fit(GOOD.astype(float), LABELS), "hashes: expected dtype float32"),
        (lambda: KNNClassifier().fit(GOOD, LABELS[:3]), "labels: expected 4 strings"),
        (lambda: KNNClassifier().fit(GOOD, np.arange(4)), "labels: expected 4 strings, one for each hash, got int64"),
        (lambda: KNNClassifier().fit(GOOD, ["a", "", "b", ""]), "labels: row 1 has no label"),
        (lambda: KNNClassifier().fit(GOOD[:0], LABELS[:0]), "hashes: expected at least one"),
        (lambda: KNNClassifier().fit(GOOD, LABELS).predict(GOOD[:, :3]), "queries: expected 4 dimensions, got 3"),
        (lambda: KNNClassifier(1, "hamming").fit(GOOD, LABELS), "hashes: expected dtype uint8"),
    ],
)
def test_a_wrong_argument_of_the_classifier_is_named(call, message):
    with pytest.raises(ArgumentError) as caught:
        call()
    assert message in str(caught.value)


def series(n_days, seed=0):
    """Daily hashes of a slow walk, and whether it is above zero."""
    rng = np.random.default_rng(seed)
    level = 2 * np.sin(np.arange(n_days) / 9) + rng.normal(0, 0.1, n_days)
    hashes = np.column_stack([level, rng.normal(size=n_days)]).astype(np.float32)
    return hashes, np.where(level > 0, "active", "quiet"), START + np.arange(n_days) * DAY


def test_blocks_agree_with_a_loop_over_frames():
    hashes, labels, times = series(200)
    hashes += np.random.default_rng(1).normal(0, 1, hashes.shape).astype(np.float32)  # or it would be too easy
    report = evaluate_classes(hashes, labels, times, 5, block="30d", gap="10d")
    confusion = np.zeros((2, 2), int)
    for day in range(200):
        first, last = day // 30 * 30, min(day // 30 * 30 + 29, 199)
        learn = [other for other in range(200) if other <= first - 10 or other >= last + 10]
        distances = vector_distances(hashes[day : day + 1], hashes[learn], "l2")[0]
        guess = knn_votes(distances, labels[learn].tolist(), 5)
        confusion[["active", "quiet"].index(labels[day]), ["active", "quiet"].index(guess)] += 1
    np.testing.assert_array_equal(report.confusion, confusion)
    assert report.classes.tolist() == ["active", "quiet"]
    assert report.accuracy == np.trace(confusion) / 200
    assert report.chance == confusion.sum(axis=1).max() / 200
    assert report.balanced_accuracy == pytest.approx((np.diag(confusion) / confusion.sum(axis=1)).mean())
    assert (report.n_images, report.n_tested, report.n_blocks) == (200, 200, 7)
    assert report.ci95[0] < report.accuracy < report.ci95[1]
    assert report.chance < report.ci95[0]
    days = np.arange(200, dtype=np.float32)[:, None]
    assert report.calendar == evaluate_classes(days, labels, times, 5, block="30d", gap="10d").accuracy


def test_neighbours_in_time_are_not_learnt_from():
    # The hash is the day alone and labels are the month's: only frames of the same month could know.
    days = np.arange(300)
    hashes, labels = days.astype(np.float32)[:, None], np.array([f"month {day // 30 % 5}" for day in days])
    times = START + days * DAY
    assert evaluate_classes(hashes, labels, times, 1, block="30d", gap="1d").accuracy == 0
    assert evaluate_classes(hashes, labels, times, 1, block="7d", gap="1d").accuracy > 0.7
    assert evaluate_classes(hashes, labels, times, 1, block="7d", gap="40d").accuracy == 0


@pytest.mark.parametrize("metric", ["l2", "hamming"])
def test_random_hashes_are_no_better_than_chance(metric):
    rng = np.random.default_rng(2)
    hashes = rng.integers(0, 256, (1500, 4), dtype=np.uint8)
    hashes = hashes if metric == "hamming" else hashes.astype(np.float32)
    report = evaluate_classes(hashes, rng.choice(["a", "b", "c"], 1500), START + np.arange(1500) * DAY / 2, 9, metric)
    assert report.chance == pytest.approx(1 / 3, abs=0.03)
    assert report.accuracy == pytest.approx(1 / 3, abs=0.05)
    assert report.balanced_accuracy == pytest.approx(1 / 3, abs=0.05)


def test_frames_without_a_time_or_label_are_left_out_and_order_is_of_no_matter():
    hashes, labels, times = series(150)
    report = evaluate_classes(hashes, labels, times)
    order = np.random.default_rng(0).permutation(150)
    extra = np.concatenate([hashes[order], hashes[:2]])
    texts = [*(str(time) for time in times[order]), "", str(times[0])]
    padded = evaluate_classes(extra, [*labels[order], "quiet", ""], texts)
    assert padded.to_dict() == report.to_dict() | {"n_images": 152}
    assert json.loads(json.dumps(report.to_dict()))["confusion"] == report.confusion.tolist()
    assert isinstance(report, ClassReport)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["a"] * 4}, "labels: expected at least two classes among frames with a time, got 1"),
        ({"labels": ["a"] * 3}, "labels: expected 4 strings"),
        ({"times": ["", "", "", ""]}, "labels: expected at least two classes"),
        ({"gap": "90d"}, "gap: no block of 672 h has frames at least 2160 h away"),
        ({"gap": -1}, "gap: expected a length of time"),
        ({"block": 0}, "block: expected more than 0, got 0"),
        ({"k": 0}, "k: expected an integer at least 1, got 0"),
        ({"metric": "l3"}, "metric: expected one of"),
    ],
)
def test_a_wrong_argument_of_the_evaluation_is_named(change, message):
    with pytest.raises(ArgumentError) as caught:
        evaluate_classes(**{"hashes": GOOD, "labels": LABELS, "times": START + np.arange(4) * 20 * DAY, **change})
    assert message in str(caught.value)


def test_read_labels(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text('flux,path,label\n1,a.fits,quiet\n2,"b, c.fits",active\n1,a.fits,quiet\n3,d.fits\n')
    expected = {"a.fits": "quiet", "b, c.fits": "active", "d.fits": ""}
    assert read_labels(table) == {os.path.abspath(path): label for path, label in expected.items()}


def test_read_labels_as_a_spreadsheet_writes_them(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_bytes(b"\xef\xbb\xbfpath,label\r\n/a.fits,quiet\r\n")
    assert read_labels(table) == {"/a.fits": "quiet"}


def test_more_voters_than_any_integer_type_holds():
    for metric, rows in (("l2", np.eye(3, dtype=np.float32)), ("hamming", np.uint8([[0], [1], [255]]))):
        classifier = KNNClassifier(10**20, metric).fit(rows, ["a", "b", "b"])
        assert classifier.predict(rows).tolist() == ["b", "b", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "labels.csv: No such file"),
        ("", "labels.csv: expected a first line with the columns path and label"),
        ("name,label\na,b\n", "labels.csv: expected a first line"),
        ("path,label\na,b\na,c\n", "labels.csv: line 3: a has two labels"),
        ("path,label\na,b\n./a,c\n", "labels.csv: line 3: ./a has two labels"),
        ("label,path\nb\n", "labels.csv: line 2: no path"),
        ("path,label\na," + "b" * 200_000, "labels.csv: not a table of comma-separated values"),
    ],
)
def test_a_broken_table_is_named(text, message, tmp_path):
    table = tmp_path / "labels.csv"
    if text is not None:
        table.write_text(text)
    with pytest.raises(ReadError) as caught:
        read_labels(table)
    assert message in str(caught.value)


@pytest.fixture(scope="module")
def archive(frames, encoder_path, tmp_path_factory):
    """A catalog of simulated frames, and a table of their flux classes that the example has written."""
    folder = tmp_path_factory.mktemp("classes")
    command = ["build", frames[0].parent, "--encoder", encoder_path, "-o", folder / "catalog"]
    assert main([str(word) for word in command]) == 0
    arguments = [str(EXAMPLE), str(frames[0].parent), str(folder / "labels.csv"), "--classes", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", arguments)
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    return folder / "catalog", folder / "labels.csv"


def test_the_example_labels_by_flux(archive, frames):
    with archive[1].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == {str(path) for path in frames}
    flux = np.array([float(row["flux"]) for row in rows])
    active = np.array([row["label"] == "active" for row in rows])
    assert active.sum() == 18
    assert flux[active].min() > flux[~active].max()
    assert (flux > 1e21).all()
    assert (flux < 1e24).all()


def test_the_flux_of_a_uniform_field_is_field_times_disk(tmp_path):
    y, x = np.mgrid[:200, :200] - 99.5
    np.save(tmp_path / "disk.npy", np.where(np.hypot(x, y) < 100, -50, np.nan).astype(np.float32))
    flux = runpy.run_path(str(EXAMPLE))["unsigned_flux"](tmp_path / "disk.npy")
    assert flux == pytest.approx(50 * np.pi * 6.96e10**2, rel=0.03)  # cells at the limb count by halves


def test_classify(archive, frames, capsys):
    catalog, table = archive
    command = ["classify", catalog, frames[4], frames[30], "--labels", table, "-k", 1]
    status, out, _ = run(capsys, *command, "--json")
    assert status == 0
    labels, results = read_labels(table), json.loads(out)["results"]
    assert [result["label"] for result in results] == [labels[str(frames[4])], labels[str(frames[30])]]
    assert [result["votes"][result["label"]] for result in results] == [1, 1]
    lines = run(capsys, *command, "--metric", "hamming")[1].splitlines()
    assert len(lines) == 3
    assert "1 of 1" in lines[1]
    assert lines[2].endswith(str(frames[30]))


@pytest.mark.parametrize("metric", ["l2", "cosine", "hamming"])
def test_evaluate_classes_from_the_command_line(metric, archive, capsys):
    catalog, table = archive
    command = ["evaluate", "classes", catalog, "--labels", table, "-k", 3, "--block", "12h", "--gap", "6h"]
    report = json.loads(run(capsys, *command, "--metric", metric, "--json")[1])
    assert (report["n_tested"], report["n_blocks"], report["chance"]) == (36, 6, 0.5)
    assert report["classes"] == ["active", "quiet"]
    assert sum(map(sum, report["confusion"])) == 36
    out = run(capsys, *command, "--metric", metric)[1]
    assert f"accuracy    {report['accuracy']:.3f}" in out
    assert "taken for" in out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["classify", "{catalog}", "{frame}"], "no image in it has a label; give them by --labels"),
        (["evaluate", "classes", "{catalog}"], "no image in it has a label; give them by --labels"),
        (["classify", "{catalog}", "{frame}", "--labels", "nowhere.csv"], "nowhere.csv: No such file"),
        (["classify", "{catalog}", "{frame}", "--labels", "{other}"], "labels none of the 36 images"),
        (["classify", "{catalog}", "nowhere.fits", "--labels", "{table}"], "nowhere.fits"),
        (["classify", "{catalog}", "{frame}", "--labels", "{table}", "-k", "0"], "k: expected"),
        (["evaluate", "classes", "{catalog}", "--labels", "{table}"], "gap: no block of"),
        (["evaluate", "classes", "{catalog}", "--labels", "{table}", "--gap", "soon"], "--gap: expected a length"),
    ],
)
def test_failures_are_1_and_one_line_that_names_the_cause(arguments, named, archive, frames, tmp_path, capsys):
    other = tmp_path / "other.csv"
    other.write_text("path,label\nelsewhere.fits,quiet\n")
    words = {"catalog": archive[0], "table": archive[1], "frame": frames[0], "other": other}
    status, out, err = run(capsys, *(argument.format(**words) for argument in arguments))
    assert status == 1
    assert out == ""
    assert [named in line for line in err.splitlines() if line.startswith("error: ")] == [True]


@pytest.mark.parametrize("verb", [["classify"], ["evaluate", "classes"]])
def test_help_has_an_example(verb, capsys):
    with pytest.raises(SystemExit):
        main([*verb, "--help"])
    assert f"example:\n  fasthash {' '.join(verb)} sun.catalog" in capsys.readouterr().out
