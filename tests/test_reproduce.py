"""The comparisons: what is left out and why, how rankings are judged, and both commands from end to end."""

import json

import numpy as np
import pytest
from commands import run

import fasthash as fh
from fasthash.evaluation import evaluate_window
from fasthash.io import Image, read_image
from fasthash.radio import baselines, densenet
from fasthash.radio import reproduce as radio
from fasthash.radio.simulator import write_galaxies
from fasthash.ranking import evaluate_ranking
from fasthash.reproduce import Method, Published, compare, describe_all
from fasthash.solar import reproduce as solar

SMALL = densenet.Backbone(growth=4, blocks=(1, 2), stem=8)


def row_of(image):
    if image.path == "bad":
        raise fh.ReadError("bad: cannot be described")
    return np.array([image.pixels.mean(), 1], np.float32)


def never(image):
    raise fh.ReadError(f"{image.path}: never")


def images(*names):
    return [name if ":" in name else Image(np.full((2, 2), i, np.float32), name) for i, name in enumerate(names)]


def test_images_that_a_descriptor_cannot_take_are_left_out_of_all():
    told = describe_all({"a": row_of, "b": lambda _: np.ones(3, np.float32), "c": never},
                        images("x", "bad", "y: damaged", "z"), lambda _: None)  # fmt: skip
    assert [image.path for image in told.images] == ["x", "z"]
    np.testing.assert_array_equal(told.rows["a"][:, 0], [0, 3])
    assert told.rows["b"].shape == (2, 3)
    assert told.unusable == {"c": "x: never"}
    assert told.problems == ["y: damaged", "bad: cannot be described"]
    assert set(told.seconds) == {"a", "b"}


@pytest.mark.parametrize(
    ("given", "named"), [(["y: damaged"], "y: damaged"), ([], "no image"), (["bad"], "bad: cannot")]
)
def test_without_any_image_there_is_an_error(given, named):
    with pytest.raises(fh.FastHashError, match=named):
        describe_all({"a": row_of}, images(*given), lambda _: None)


def test_rows_tell_size_metric_and_why_they_are_skipped():
    told = describe_all({"a": row_of, "c": never}, images("x", "y", "z"), lambda _: None)
    seen = []

    def judge(hashes, metric):
        seen.append((hashes.dtype.name, metric))
        return {"score": float(hashes.sum())}

    def needs_more(_):
        raise fh.MissingDependencyError("needs more")

    methods = [
        Method("floats", "a", lambda archive: lambda rows: rows - archive.mean(axis=0), metric="cosine"),
        Method("bits", "a", lambda _: lambda rows: (rows[:, :1] > 0).astype(np.uint8), 1, "l2", Published(0.5, "us")),
        Method("nothing", "c", lambda _: lambda rows: rows),
        Method("more", "a", needs_more),
    ]  # fmt: skip
    rows = [row.to_dict() for row in compare(methods, told, slice(0, 2), judge, lambda *_: None)]
    assert seen == [("float32", "cosine"), ("uint8", "hamming")]
    assert rows[0]["score"] == pytest.approx(0 + 1 + 2 - 3 * 0.5)
    assert (rows[0]["floats"], rows[0]["metric"], rows[0]["published"]) == (2, "cosine", None)
    assert (rows[1]["bits"], rows[1]["published"]) == (1, {"score": 0.5, "source": "us"})
    assert rows[2] == {"representation": "nothing", "skipped": "x: never"}
    assert rows[3] == {"representation": "more", "skipped": "needs more"}


def test_rankings_are_judged_as_evaluate_radio_does():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (90, 1)).astype(np.uint8) << 4
    labels = rng.choice(["Bent", "FRI"], 90)
    report = evaluate_ranking(codes[60:], labels[60:], codes[:60], labels[:60], 4)
    judge = radio._Judge(labels[:60], labels[60:])
    found = judge(codes, "hamming")
    assert found["map"] == pytest.approx(report.map)
    assert found["ci95"] == pytest.approx(report.ci95)
    assert found["map_top100"] == pytest.approx(report.scores[:, 1].mean())
    assert judge.chance() == pytest.approx(report.chance)
    # Floats that are as near as the codes are, ties and all.
    floats = fh.unpack_bits(codes, 4).astype(np.float32)
    assert judge(floats, "l2")["map"] == pytest.approx(report.map)


def test_reproduce_solar(frames, tmp_path, capsys):
    (tmp_path / "broken.fits").write_bytes(b"no FITS")
    status, out, err = run(capsys, "reproduce", "solar", "--frames", frames[0].parent, tmp_path / "broken.fits",
                           "--out", tmp_path / "out", "--json")  # fmt: skip
    assert status == 0
    answer = json.loads(out)
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == answer
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert answer["data"].startswith("SIMULATED by fasthash, 36 frames from 2014-05-01T00:00")
    assert answer["n_images"] == answer["n_queries"] == 36
    assert "broken.fits" in answer["left_out"][0]
    assert "left out:" in err
    rows = {row["representation"]: row for row in answer["rows"]}
    assert "expected 50 to 20000" in rows["regions, bag of words"]["skipped"]
    assert {row.get("bits", row.get("floats")) for row in rows.values()} >= {50, 64, 100, 400, 640}
    assert rows["solar-paper"]["published"]["score"] == 0.93
    for name, row in rows.items():
        assert "skipped" in row or answer["chance_6h"] * 0.3 < row["precision_6h"] <= 1, name
    hashes = fh.load_encoder("solar-paper").encode(frames)
    times = [read_image(path).time for path in frames]
    assert rows["solar-paper"]["precision"] == pytest.approx(evaluate_window(hashes, times).precision)


@pytest.fixture
def quick_triplets(monkeypatch):
    pytest.importorskip("torch", reason="needs the extra [train]")
    pytest.importorskip("onnx", reason="needs the extra [train]")
    for module, name, value in ((baselines, "TRIPLET_BACKBONE", SMALL), (baselines, "TRIPLET_EPOCHS", 1),
                                (baselines, "TRIPLET_SIZE", 32), (densenet, "RATE_STEPS", 3)):  # fmt: skip
        monkeypatch.setattr(module, name, value)


@pytest.mark.usefixtures("quick_triplets")
def test_reproduce_radio(tmp_path, capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    write_galaxies(tmp_path / "set", 150, seed=3)
    status, out, err = run(capsys, "reproduce", "radio", "--reference", tmp_path / "set", "--query", tmp_path / "set",
                           "--out", tmp_path / "out")  # fmt: skip
    assert status == 0
    assert "train is taken\n" in err
    assert "test is taken\n" in err
    assert "triplets, small network" in out
    assert "skipped: no weights" in out
    assert "chance" in out
    answer = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (answer["n_reference"], answer["n_query"], answer["n_duplicates"], answer["left_out"]) == (90, 28, 0, [])
    rows = {row["representation"]: row for row in answer["rows"]}
    assert answer["chance"] < rows["radio, code"]["map"] <= 1
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_without_images_they_are_simulated(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module, name, value in ((solar, "DAYS", 2), (solar, "SIZE", 64), (radio, "COUNT", 100)):
        monkeypatch.setattr(module, name, value)

    def train(*_):
        raise fh.MissingDependencyError("training needs torch")

    monkeypatch.setattr(baselines, "train_triplets", train)
    for system, counts in (("solar", "24 frames"), ("radio", "80 galaxies; 20 queries, 60 reference images")):
        status, out, _ = run(capsys, "reproduce", system)
        assert status == 0
        assert out.startswith("SIMULATED by fasthash, ")
        assert counts in out.splitlines()[0]
    assert "skipped: training needs torch" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["solar", "--frames", "nowhere"], "nowhere"),
        (["solar", "--encoder", "nothing.onnx"], "nothing.onnx"),
        (["solar", "--out", "{file}"], "--out"),
        (["radio", "--reference", "{file}"], "--reference, --query: expected both"),
        (["radio", "--reference", "nowhere", "--query", "nowhere"], "nowhere"),
        (["solar", "--encoder", "radio"], "radio: not an encoder of the Sun"),
        (["radio", "--encoder", "solar"], "solar: not an encoder of radio galaxies"),
        (["radio", "--encoder", "{encoder}", "{encoder}"], "not an encoder of radio"),
    ],
)  # fmt: skip
def test_failures_are_one_line_that_names_the_cause(arguments, named, encoder_path, tmp_path, capsys):
    (tmp_path / "file").touch()
    words = {"file": tmp_path / "file", "encoder": encoder_path}
    status, out, err = run(capsys, "reproduce", *(each.format(**words) for each in arguments))
    assert (status, out) == (1, "")
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert named in errors[0]


def test_help_teaches(capsys):
    for system in ("solar", "radio"):
        status, out, _ = run(capsys, "reproduce", system, "--help")
        assert status == 0
        assert f"example:\n  fasthash reproduce {system}" in out
