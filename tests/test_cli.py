"""The commands of a user, from end to end: what they print, what they leave, how they end."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from commands import run
from hashed import make_items

import fasthash as fh
from fasthash.cli import main


@pytest.fixture
def catalog(tmp_path, capsys, frames, encoder_path):
    status, out, _ = run(capsys, "build", frames[0].parent, "--encoder", encoder_path, "-o", tmp_path / "catalog")
    assert status == 0
    assert "36 images added, 36 in all" in out
    return tmp_path / "catalog"


def test_simulate_encode_and_read_back(tmp_path, capsys, encoder_path):
    folder, out = tmp_path / "sun", tmp_path / "h.npz"
    times = ["--start", "2014-05-01", "--days", "0.5", "--cadence", "60", "--size", "48", "--seed", "1"]
    assert run(capsys, "simulate", folder, *times)[0] == 0
    assert run(capsys, "encode", folder, "--encoder", encoder_path, "-o", out)[0] == 0
    with np.load(out, allow_pickle=False) as arrays:
        assert set(arrays) == {"hashes", "codes", "paths", "times", "labels"}
        assert arrays["hashes"].shape == (12, 50)
        assert arrays["hashes"].dtype == np.float32
        assert arrays["codes"].shape == (12, 7)
        assert arrays["codes"].dtype == np.uint8
        assert list(arrays["times"]) == [f"2014-05-01T{hour:02d}:00:00" for hour in range(12)]
        assert all(os.path.dirname(path) == str(folder) for path in arrays["paths"])
        assert set(arrays["labels"]) == {""}
        np.testing.assert_array_equal(arrays["hashes"], fh.load_encoder(encoder_path).encode(list(arrays["paths"])))


def test_search_as_json_is_one_object_and_nothing_else(catalog, frames, capsys):
    status, out, _ = run(capsys, "search", catalog, frames[3], "-k", 4, "--exclude-within", "3h", "--json")
    assert status == 0
    answer = json.loads(out)
    assert answer["query"] == str(frames[3])
    assert [hit["rank"] for hit in answer["results"]] == [1, 2, 3, 4]
    assert set(answer["results"][0]) == {"rank", "distance", "path", "time", "label", "id"}
    query = np.datetime64("2014-05-01T06:00:00")
    assert all(abs(np.datetime64(hit["time"]) - query) > np.timedelta64(3, "h") for hit in answer["results"])


def test_search_as_table_and_gallery(catalog, frames, capsys, tmp_path):
    picture = tmp_path / "hits.png"
    status, out, _ = run(capsys, "search", catalog, frames[3], "-k", 3, "--gallery", picture, "--metric", "cosine")
    assert status == 0
    assert len(out.splitlines()) == 4
    assert str(frames[3]) in out.splitlines()[1]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_search_between(catalog, frames, capsys):
    span = ["--between", "2014-05-02T00:00", "2014-05-02T06:00"]
    _, out, _ = run(capsys, "search", catalog, frames[0], "-k", 99, *span, "--json")
    times = sorted(hit["time"] for hit in json.loads(out)["results"])
    assert times == [f"2014-05-02T{hour:02d}:00:00" for hour in (0, 2, 4, 6)]


def found_by(capsys, *arguments):
    status, out, _ = run(capsys, "search", *arguments, "--json")
    assert status == 0
    return json.loads(out)


def test_search_by_number_part_card_and_stretch_of_time(catalog, frames, capsys, tmp_path):
    by_file = found_by(capsys, catalog, frames[3], "-k", 5)
    number = by_file["results"][0]["id"]
    by_number = found_by(capsys, catalog, f"id:{number}", "-k", 5)
    assert (by_number["results"], by_number["time"]) == (by_file["results"], by_file["time"])
    assert found_by(capsys, catalog, frames[3], "-k", 5, "--exact")["results"] == by_file["results"]
    assert run(capsys, "search", catalog, f"id:{number}", "--gallery", tmp_path / "hits.png")[0] == 0
    apart = found_by(capsys, catalog, frames[3], "--distinct", "8h")["results"]
    times = np.sort([np.datetime64(hit["time"]) for hit in apart])
    assert len(apart) > 4
    assert (np.diff(times) >= np.timedelta64(8, "h")).all()
    north = found_by(capsys, catalog, frames[3], "-k", 36, "--region", "north")["results"]
    assert north[0]["path"] == str(frames[3])
    assert north != found_by(capsys, catalog, frames[3], "-k", 36, "--region", "0,0,1,0.4")["results"]
    assert len(found_by(capsys, catalog, frames[3], "-k", 99, "--where", "CROTA2=-1..1", "--where", "CRPIX1=32.5")) > 0
    assert found_by(capsys, catalog, frames[3], "--where", "TELESCOP=SOHO")["results"] == []


def test_search_by_a_card_whose_text_looks_like_a_number(tmp_path, encoder_path, capsys):
    with fh.Catalog.create(tmp_path / "c", encoder_path) as catalog:
        items = make_items(catalog.encoder, 3)
        for item, value in zip(items, ("11158", 11158, "NaN"), strict=True):
            item.image.header["OBJECT"] = value
        catalog.insert(items)
    for wanted, number in (("'11158'", 2), ("11158", 3), ("'NaN'", 4)):
        hits = found_by(capsys, tmp_path / "c", "id:2", "--where", f"OBJECT={wanted}")["results"]
        assert [hit["id"] for hit in hits] == [number]


def test_images_are_relabelled_deleted_and_compacted_away(catalog, frames, capsys):
    assert "2 images relabelled" in run(capsys, "relabel", catalog, "flare", frames[3], frames[4])[1]
    hits = found_by(capsys, catalog, frames[3], "--label", "flare")["results"]
    assert [hit["path"] for hit in hits] == [str(frames[3]), str(frames[4])]
    assert "2 images deleted, 34 left" in run(capsys, "delete", catalog, frames[3], f"id:{hits[1]['id']}")[1]
    assert "all 34 images" in run(capsys, "verify", catalog)[1]
    assert "34 images" in run(capsys, "compact", catalog, "--metric", "cosine")[1]
    assert found_by(capsys, catalog, frames[3], "--label", "flare")["results"] == []


def test_add_is_idempotent(catalog, frames, capsys, tmp_path):
    assert run(capsys, "simulate", tmp_path / "more", "--start", "2014-06-01", "--days", "0.25", "--cadence", "120",
               "--size", "64")[0] == 0  # fmt: skip
    status, out, err = run(capsys, "add", catalog, tmp_path / "more", frames[0])
    assert status == 0
    assert "3 images added, 39 in all" in out
    assert f"{frames[0]}: its content is in the catalog already" in err


def test_evaluate_solar(catalog, capsys, tmp_path):
    picture = tmp_path / "curve.svg"
    status, out, _ = run(capsys, "evaluate", "solar", catalog, "--window", "12h", "--json", "--plot", picture)
    assert status == 0
    report = json.loads(out)
    assert 0 < report["chance"] < report["precision"] <= 1
    assert report["precision"] == pytest.approx(report["recall"])
    assert set(report["precision_at"]) == {"1", "10", "50"}
    assert report["n_queries"] == 36
    assert report["ci95"][0] - 1e-9 <= report["precision"] <= report["ci95"][1] + 1e-9
    # 6 h either side at 2-h cadence: three frames before and three after, fewer at the ends.
    assert report["si_mean"] == pytest.approx((36 * 6 - 2 * (3 + 2 + 1)) / 36)
    assert b"<svg" in picture.read_bytes()[:500]
    assert "precision" in run(capsys, "evaluate", "solar", catalog, "--exclude-within", "2h")[1]


@pytest.mark.parametrize("metric", ["l2", "hamming"])
def test_evaluate_solar_by_query_cadence_and_window(metric, catalog, capsys, tmp_path):
    table = tmp_path / "queries.csv"
    options = ["--by", "cadence", "--by", "window", "--queries", table, "--metric", metric, "--window", "12h"]
    report = json.loads(run(capsys, "evaluate", "solar", catalog, *options, "--json")[1])
    with table.open(encoding="utf-8", newline="") as file:
        queries = list(csv.DictReader(file))
    assert list(queries[0]) == ["path", "time", "SI", "RI", "PRI", "FPRI", "PNRI", "FNRI", "precision", "recall"]
    assert len(queries) == report["n_queries"] == 36
    assert queries[3]["time"] == "2014-05-01T06:00:00"
    for name, mean in [*report["counts"].items(), ("precision", report["precision"])]:
        assert np.mean([float(query[name]) for query in queries]) == pytest.approx(mean)
    assert [each["cadence_minutes"] for each in report["by_cadence"]] == [120, 240, 360]  # at 12 h, 6 h reach no frame
    assert [each["window_hours"] for each in report["by_window"]] == [6, 12, 24, 36, 48, 72, 96]
    assert report["by_window"][1] == report["by_cadence"][0] == {key: report[key] for key in report["by_window"][1]}
    out = run(capsys, "evaluate", "solar", catalog, *options)[1]
    for wanted in ("FPRI", "mean of 36", "cadence", "6 h", "96 h"):
        assert wanted in out


def test_train_solar(tmp_path, capsys, frames):
    pytest.importorskip("torch", reason="needs the extra [train]")
    out = tmp_path / "mine.onnx"
    status, text, _ = run(capsys, "train", "solar", frames[0].parent, "-o", out, "--epochs", 2, "--seed", 4)
    assert status == 0
    assert "36 images, 2 epochs" in text
    encoder = fh.load_encoder(out)
    assert encoder.name == "mine"
    assert encoder.metadata["training"]["seed"] == 4


def test_train_solar_best(tmp_path, capsys, frames):
    pytest.importorskip("torch", reason="needs the extra [train]")
    out = tmp_path / "mine.onnx"
    status, text, _ = run(
        capsys, "train", "solar", frames[0].parent, "-o", out, "--preset", "best", "--epochs", 8, "--seed", 4
    )
    assert status == 0
    assert "36 images, 1 steps" in text
    encoder = fh.load_encoder(out)
    assert (encoder.name, encoder.dim, encoder.n_bits) == ("mine", 64, 64)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.onnx"]
    status, _, err = run(capsys, "train", "solar", frames[0], "-o", out, "--preset", "best")
    assert status == 1
    assert "maps" in err


def test_a_distance_beyond_float32_is_null_in_json(capsys, tmp_path, encoder_path):
    encoder = fh.load_encoder(encoder_path)
    items = make_items(encoder, 2)
    apart = [replace(items[i], hash=np.full(encoder.dim, x, np.float32)) for i, x in enumerate((3e38, -3e38))]
    with fh.Catalog.create(tmp_path / "c", encoder) as catalog:
        catalog.insert(apart)
        number = catalog.rows().ids[0]
    answer = found_by(capsys, tmp_path / "c", f"id:{number}")
    assert [hit["distance"] for hit in answer["results"]] == [0, None]
    assert run(capsys, "search", tmp_path / "c", f"id:{number}")[1].splitlines()[-1].split()[1] == "inf"


def test_info(capsys):
    facts = json.loads(run(capsys, "info", "--json")[1])
    assert facts["versions"]["fasthash"] == fh.__version__
    assert facts["simd_level"] == fh.simd_level()
    assert facts["threads"] >= 1
    assert set(facts["encoders"]) == set(fh.shipped_encoders())
    assert fh.__version__ in run(capsys, "info")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["serach"],
        ["search"],
        ["encode", "x", "-o", "y"],
        ["train"],
        ["search", "a", "b", "-k", "x"],
        ["regions", "x", "--max-pixels", "0"],
    ],
)
def test_wrong_usage_is_2_and_one_error_line(arguments, capsys):
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert err.startswith("usage: fasthash")
    assert err.count("error: ") == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["search", "{catalog}", "nowhere.fits"], "nowhere.fits"),
        (["search", "nowhere", "{frame}"], "nowhere"),
        (["search", "{catalog}", "{frame}", "-k", "0"], "k:"),
        (["search", "{catalog}", "{frame}", "--exclude-within", "soon"], "--exclude-within"),
        (["search", "{catalog}", "{frame}", "--between", "2014", "x"], "--between"),
        (["search", "{catalog}", "{frame}", "--gallery", "x.bmp"], "x.bmp"),
        (["search", "{catalog}", "id:1"], "image: 1 is not in this catalog"),
        (["search", "{catalog}", "{frame}", "--where", "CROTA2"], "--where CROTA2"),
        (["search", "{catalog}", "{frame}", "--where", "NAXIS=2"], "NAXIS"),
        (["search", "{catalog}", "{frame}", "--distinct", "soon"], "--distinct"),
        (["search", "{catalog}", "{frame}", "--region", "middle"], "region"),
        (["delete", "{catalog}", "nowhere.fits"], "nowhere.fits is not in this catalog"),
        (["relabel", "{catalog}", "flare", "id:999"], "999 is not in this catalog"),
        (["evaluate", "solar", "{catalog}", "--window", "x"], "--window"),
        (["evaluate", "solar", "{catalog}", "--window", "1h"], "window: no frame has another within 0.5 h"),
        (["evaluate", "solar", "{catalog}", "--queries", "x.txt"], "--queries x.txt"),
        (["evaluate", "solar", "{catalog}", "--plot", "nowhere/x.png"], "--plot nowhere/x.png"),
        (["evaluate", "solar", "nowhere"], "nowhere"),
        (["build", "{frame}", "--encoder", "nothing", "-o", "{new}"], "nothing"),
        (["build", "{frame}", "--encoder", "{encoder}", "-o", "{catalog}"], "exists already"),
        (["encode", "{frame}", "--encoder", "{encoder}", "-o", "x.csv"], "x.csv"),
        (["encode", "{frame}", "--encoder", "{encoder}", "-o", "nowhere/x.npz"], "nowhere/x.npz"),
        (["simulate", "{new}", "--start", "soon", "--days", "1", "--cadence", "60", "--size", "64"], "start"),
        (["simulate", "{new}", "--start", "2014-01-01", "--days", "0", "--cadence", "60", "--size", "64"], "days"),
        (["train", "solar", "{frame}", "-o", "x.onnx", "--preset", "none"], "preset"),
    ],
)
def test_failures_are_1_and_one_line_that_names_the_cause(
    arguments, named, catalog, frames, encoder_path, tmp_path, capsys
):
    words = {"catalog": catalog, "frame": frames[0], "new": tmp_path / "new", "encoder": encoder_path}
    status, out, err = run(capsys, *(argument.format(**words) for argument in arguments))
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 1
    assert out == ""
    assert len(errors) == 1
    assert named in errors[0]
    assert "Traceback" not in err


def test_debug_shows_where(capsys):
    with pytest.raises(fh.FastHashError):
        main(["--debug", "search", "nowhere", "nothing.fits"])
    with pytest.raises(fh.FastHashError):
        main(["search", "nowhere", "nothing.fits", "--debug"])
    capsys.readouterr()


def test_a_reader_who_leaves_early_is_no_error(catalog, frames):
    command = f"{sys.executable} -m fasthash search {catalog} {frames[0]} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_every_command_has_help_with_an_example(capsys):
    for verb in (["demo"], ["simulate"], ["fetch", "solar"], ["info"], ["profile"], ["train", "solar"], ["encode"],
                 ["build"], ["add"], ["search"], ["evaluate", "solar"], ["evaluate", "classes"], ["classify"],
                 ["regions"]):  # fmt: skip
        status, out, _ = run(capsys, *verb, "--help")
        assert status == 0
        assert f"example:\n  fasthash {' '.join(verb)}" in out


def test_demo(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fasthash.demo.DAYS", 12)
    monkeypatch.setattr("fasthash.demo.SIZE", 64)
    monkeypatch.setattr("fasthash.demo.GALAXIES", 60)
    out = tmp_path / "demo"
    for _ in range(2):  # again into the same folder
        status, text, _ = run(capsys, "demo", "--out", out)
        assert status == 0
        assert "precision" in text
    report = json.loads((out / "report.json").read_text())
    assert report["data"].startswith("SIMULATED")
    for encoder in ("solar", "solar-paper"):
        result = report["evaluation"][f"{encoder}, hash, l2"]
        assert result["precision"] > 2 * result["chance"]
    for encoder in ("radio", "radio-8"):
        result = report["radio_evaluation"][encoder]
        assert result["map"] > 2 * result["chance"]
    assert len(report["search"]["results"]) > 0
    for name in report["pictures"]:
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    status, _, err = run(capsys, "demo", "--out", tmp_path / "mine")
    assert status == 1
    assert "holds something else" in err


def test_the_demo_clears_only_what_it_made(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fasthash.demo.simulate", lambda *_, **__: pytest.fail("it must not get this far"))
    (tmp_path / "frames").mkdir()
    (tmp_path / "report.json").write_text("{}")
    assert run(capsys, "demo", "--out", tmp_path)[0] == 1
    assert (tmp_path / "frames").is_dir()


def test_a_failed_build_leaves_a_folder_that_was_there(tmp_path, capsys, encoder_path):
    (tmp_path / "bad.fits").write_text("no FITS")
    (tmp_path / "mine").mkdir()
    status, _, _ = run(capsys, "build", tmp_path / "bad.fits", "--encoder", encoder_path, "-o", tmp_path / "mine")
    assert status == 1
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(closed):
    done = subprocess.run(["bash", "-c", f"{sys.executable} -m fasthash info {closed}"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""


def test_nothing_is_left_in_the_users_home(tmp_path, frames, encoder_path):
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": ""}
    command = [sys.executable, "-m", "fasthash", "encode", str(frames[0]), "--encoder", str(encoder_path)]
    subprocess.run([*command, "-o", str(tmp_path / "x.npz")], env=environment, check=True, capture_output=True)
    left = {path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {("x.npz",), (".cache", "fasthash"), (".astropy", "config"), (".astropy", "cache")}
