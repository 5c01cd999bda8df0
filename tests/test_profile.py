"""The command profile: every step is there, its times are sensible, and what it says is what a query takes."""

import json

import pytest

import fasthash as fh
from fasthash.cli import main

STEPS = ["import", "load", "open", "read", "decode", "describe", "encode", "binarize", "search", "total"]


@pytest.fixture(scope="module")
def catalog(frames, encoder_path, tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "catalog"
    with fh.Catalog.create(path, encoder_path) as made:
        made.add(frames[:5])
    return path


def profile(capsys, *arguments):
    status = main(["profile", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_every_step_of_a_query(frames, encoder_path, catalog, capsys):
    common = [frames[0], "--encoder", encoder_path, "--catalog", catalog, "--repeat", 3]
    status, out, _ = profile(capsys, *common, "--json")
    report = json.loads(out)
    assert status == 0
    assert report["file"] == str(frames[0])
    assert list(report["first_ms"]) == STEPS
    assert list(report["median_ms"]) == STEPS[3:]
    for column in ("first_ms", "median_ms"):
        *steps, total = report[column].values()
        assert min(steps) >= 0
        assert total == pytest.approx(sum(steps))
    assert report["median_ms"]["encode"] < report["first_ms"]["import"]
    status, out, _ = profile(capsys, *common)
    assert status == 0
    assert "median of 3" in out.splitlines()[0]
    assert len(out.splitlines()) == 1 + len(STEPS)


def test_without_a_catalog_nothing_is_searched(frames, capsys):
    report = json.loads(profile(capsys, frames[0], "--encoder", "solar", "--repeat", 1, "--json")[1])
    assert list(report["first_ms"]) == [step for step in STEPS if step not in ("open", "search")]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere.fits", "--encoder", "solar"], "nowhere.fits"),
        (["{folder}", "--encoder", "solar"], "{folder}"),
        (["{frame}", "--encoder", "solar", "--repeat", "0"], "--repeat"),
        (["{frame}", "--encoder", "solar", "--catalog", "{catalog}"], "{catalog}"),
        (["{frame}", "--encoder", "nothing"], "nothing"),
    ],
)
def test_what_cannot_be_profiled_is_named(arguments, named, frames, catalog, capsys):
    words = {"frame": str(frames[0]), "folder": str(frames[0].parent), "catalog": str(catalog)}
    status, out, err = profile(capsys, *(argument.format(**words) for argument in arguments))
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert named.format(**words) in err


def test_a_picture_and_a_damaged_file(tmp_path, capsys):
    from PIL import Image

    Image.effect_noise((64, 64), 50).save(tmp_path / "noise.png")
    assert profile(capsys, tmp_path / "noise.png", "--encoder", "solar", "--repeat", 1)[0] == 0
    (tmp_path / "bad.fits").write_bytes(b"nothing")
    status, _, err = profile(capsys, tmp_path / "bad.fits", "--encoder", "solar")
    assert status == 1
    assert "bad.fits" in err
