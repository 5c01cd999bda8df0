"""The commands train radio and evaluate radio, on small pictures of one spot, two spots and a bow."""

import functools
import json
import shutil
import zipfile

import numpy as np
import pytest
from commands import run

import fasthash as fh
from fasthash.cli import main
from fasthash.radio import densenet
from fasthash.radio.cutout import Cutout
from fasthash.radio.dataset import read_dataset, without
from fasthash.radio.simulator import write_galaxies
from fasthash.ranking import evaluate_ranking, label_codes

torch = pytest.importorskip("torch", reason="needs the extra [train]")
pytest.importorskip("onnx", reason="needs the extra [train]")

SMALL = densenet.Backbone(growth=4, blocks=(1, 2), stem=8)


def picture(label, rng):
    y, x = np.mgrid[:48, :48]
    row, column = 24 + rng.normal(0, 2, 2)
    spots = {"Compact": [(0, 0)], "FRII": [(0, -9), (0, 9)], "Bent": [(6, -9), (0, 0), (6, 9)]}[label]
    image = sum(np.exp(-((x - column - dx) ** 2 + (y - row - dy) ** 2) / 10) for dy, dx in spots)
    return np.round(255 * image / image.max()).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """data/train with 10 of each class and data/valid with 6, the first of which stands in train too."""
    from PIL import Image

    root, rng = tmp_path_factory.mktemp("radio") / "data", np.random.default_rng(0)
    for label in ("Bent", "Compact", "FRII"):
        images = [picture(label, rng) for _ in range(15)]
        for split, some in (("train", images[:10]), ("valid", images[9:])):
            (root / split / label).mkdir(parents=True)
            for i, image in enumerate(some):
                Image.fromarray(image).save(root / split / label / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def archive(folder):
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as file:
        for image in sorted(folder.rglob("*.png")):
            file.write(image, image.relative_to(folder.parent))
    return path


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Two untrained encoders of 8 and 12 bits."""
    made = tmp_path_factory.mktemp("encoders")
    for bits in (8, 12):
        torch.manual_seed(bits)
        training = densenet.Training(densenet.network(bits, SMALL), [1.0], 1e-3, 0, 2)
        densenet.export(made / f"r{bits}.onnx", training, Cutout(32, None), f"r{bits}", "nothing")
    return made / "r8.onnx", made / "r12.onnx"


def oracle(folder, encoder, percentile=None, by_label=False):
    """The report of valid in train, by other means than the command's."""
    reference, query = (read_dataset(folder, split) for split in ("train", "valid"))
    encoder = fh.load_encoder(encoder)
    codes = [encoder.binarize(encoder.encode(each.names.tolist()), percentile) for each in (query, reference)]
    if by_label:
        codes[1] = label_codes(codes[1], reference.labels, encoder.n_bits)
    return evaluate_ranking(codes[0], query.labels, codes[1], reference.labels, encoder.n_bits)


def test_evaluate_radio_as_json(folder, archive, encoders, capsys):
    status, out, err = run(
        capsys, "evaluate", "radio", "--reference", archive, "--query", archive, "--encoder", encoders[0], "--json"
    )
    assert status == 0
    answer = json.loads(out)
    wanted = {"map", "map_top100", "map_top100_retrieved", "chance", "n_bits", "n_query", "n_reference", "per_class"}
    assert wanted <= set(answer)
    assert "--reference" in err
    assert "train is taken" in err
    assert "valid is taken" in err
    expected = oracle(folder, encoders[0])
    assert answer["map"] == pytest.approx(expected.map)
    assert (answer["n_bits"], answer["n_query"], answer["n_reference"]) == (8, 18, 30)
    assert (answer["percentile"], answer["reference_codes"]) == (50, "encoder")
    assert set(answer["per_class"]) == {"Bent", "Compact", "FRII"}
    assert "without_duplicates" not in answer


def test_evaluate_radio_of_splits_percentiles_and_classes_as_codes(folder, archive, encoders, capsys):
    sets = ["--reference", folder / "train", "--query", archive, "--query-split", "valid", "--encoder", encoders[0]]
    answer = json.loads(run(capsys, "evaluate", "radio", *sets, "--percentile", 70, "--json")[1])
    assert answer["map"] == pytest.approx(oracle(folder, encoders[0], 70).map)
    assert answer["percentile"] == 70
    status, out, err = run(capsys, "evaluate", "radio", *sets, "--reference-codes", "labels")
    assert status == 0
    assert "NOT the paper's protocol" in out
    assert "taken" not in err
    answer = json.loads(run(capsys, "evaluate", "radio", *sets, "--reference-codes", "labels", "--json")[1])
    assert answer["reference_codes"] == "labels"
    assert answer["map"] == pytest.approx(oracle(folder, encoders[0], by_label=True).map)
    assert answer["map"] == pytest.approx(oracle(folder, encoders[0]).oracle["reference"])


def test_evaluate_radio_with_everything(folder, encoders, capsys, tmp_path):
    sets = ["--reference", folder, "--query", folder, "--encoder", encoders[0], "--compare", encoders[1], encoders[0]]
    pictures = {name: tmp_path / f"{name}.png" for name in ("sweep", "gallery", "code-lengths")}
    options = [word for name, path in pictures.items() for word in (f"--{name}", path)]
    answer = json.loads(run(capsys, "evaluate", "radio", *sets, *options, "--drop-duplicates", "--json")[1])
    reference, query = (read_dataset(folder, split) for split in ("train", "valid"))
    assert answer["without_duplicates"]["n_query"] == len(without(query, reference)) == 15
    assert answer["n_query"] == 18
    assert [each["n_bits"] for each in answer["compared"]] == [8, 12, 8]
    assert answer["compared"][0]["map"] == answer["compared"][2]["map"] == answer["map"]
    rest = answer["compared"][0]["without_duplicates"]
    assert rest["map"] == answer["without_duplicates"]["map"] != answer["map"]
    assert answer["compared"][0]["ci95"] == answer["ci95"]
    assert [each["percentile"] for each in answer["percentiles"]] == list(range(0, 101, 5))
    assert answer["percentiles"][10]["map"] == answer["map"]
    assert answer["percentiles"][10]["without_duplicates"]["map"] == rest["map"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures.values())
    text = run(capsys, "evaluate", "radio", *sets, "--drop-duplicates")[1]
    for wanted in (
        "18 queries, 30 reference images",
        "chance",
        "Compact",
        "without the 3 queries",
        "2 of 8 bits: mean",
        f"without duplicates mean {rest['map']:.3f}",
    ):
        assert wanted in text


def test_train_radio(folder, archive, tmp_path, capsys, monkeypatch):
    train = functools.partial(densenet.train, backbone=SMALL)
    for name, value in (("train", train), ("SIZE", 32), ("RATE_STEPS", 3)):
        monkeypatch.setattr(densenet, name, value)
    weights, out = tmp_path / "w.pth", tmp_path / "mine.onnx"
    torch.save(densenet.network(8, SMALL).features.state_dict(prefix="features."), weights)
    status, text, _ = run(
        capsys, "train", "radio", archive, "-o", out, "--preset", "paper", "--weights", weights, "--epochs", 2,
        "--bits", 5, "--seed", 4, "--threads", 1, "--curves", tmp_path / "curves.png",
    )  # fmt: skip
    assert status == 0
    assert "preset paper, 5 bits, 30 images, 3 epochs" in text
    assert "15 images of valid that are not in train: mAP" in text
    encoder = fh.load_encoder(out)
    assert (encoder.name, encoder.n_bits, encoder.percentile) == ("mine", 5, 50)
    assert encoder.metadata["training"]["held_out"]["n_query"] == 15
    assert (encoder.metadata["training"]["seed"], encoder.metadata["training"]["data"]) == (4, "data.zip")
    assert len(encoder.metadata["training"]["losses"]) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "mine.onnx", "w.pth"]
    report = json.loads(run(capsys, "evaluate", "radio", "--reference", folder, "--query", folder, "--encoder", out,
                            "--drop-duplicates", "--json")[1])["without_duplicates"]  # fmt: skip
    assert report["map"] == pytest.approx(encoder.metadata["training"]["held_out"]["map"])


def test_train_radio_by_preset_best(tmp_path, capsys):
    write_galaxies(tmp_path / "galaxies", 40, seed=1)
    out, curves = tmp_path / "mine.onnx", tmp_path / "curves.png"
    common = ["-o", out, "--bits", 8, "--epochs", 1, "--seed", 4, "--threads", 1]
    status, text, _ = run(
        capsys, "train", "radio", tmp_path / "galaxies", *common, "--curves", curves, "--patience", 5
    )  # fmt: skip
    assert status == 0
    assert "preset best, 8 bits, 24 images, 1 epochs, those of epoch 1 kept" in text
    assert "8 images of valid that are not in train: mAP" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "galaxies", "mine.onnx"]
    assert curves.read_bytes().startswith(b"\x89PNG")
    about = fh.load_encoder(out).metadata["training"]
    assert (about["held_out"]["n_query"], about["kept_epoch"], about["judgements"]["epoch"]) == (8, 1, [1])
    assert len(about["judgements"]["map"]) == 1
    status, text, _ = run(capsys, "train", "radio", tmp_path / "galaxies" / "train", *common)
    assert (status, "of valid" in text) == (0, False)
    about = fh.load_encoder(out).metadata["training"]
    assert (about["held_out"], about["judgements"]["epoch"]) == (None, [])


def test_what_is_to_be_tested_on_is_not_learnt(tmp_path, capsys):
    """Neither from another set nor from the other splits of one."""
    write_galaxies(tmp_path / "first", 40, seed=1)
    write_galaxies(tmp_path / "other", 20, seed=2)
    for split in ("valid", "test"):
        shutil.copytree(tmp_path / "first" / split, tmp_path / "other" / "train", dirs_exist_ok=True)
    first, other = (str(tmp_path / name) for name in ("first", "other"))
    common = ["-o", tmp_path / "x.onnx", "--bits", 8, "--epochs", 1, "--threads", 1]
    for sets, learnt in (([first], 24), ([first, first], 48), ([first, other], 36), ([other], 28)):
        status, text, err = run(capsys, "train", "radio", *sets, *common)
        assert status == 0
        assert f" {learnt} images" in text
        assert ("16 images left out, whose source stands in valid or test of" in err) == (sets == [first, other])
    for split in ("valid", "test"):
        status, _, err = run(capsys, "train", "radio", f"{first}/{split}", *common)
        assert status == 1
        assert f"{first}/{split}: holds {split}, and no train to learn from" in err


def test_the_report_stays_where_no_query_is_left_without_duplicates(folder, encoders, capsys):
    """Those of valid that do not stand in this reference have none of their class in it."""
    shown = ["--reference", folder / "valid" / "Bent", "--query", folder / "valid", "--encoder", encoders[0]]
    status, text, _ = run(capsys, "evaluate", "radio", *shown, "--drop-duplicates", "--json")
    answer = json.loads(text)
    assert status == 0
    assert (answer["n_query"], answer["n_unmatched"], answer["without_duplicates"]) == (6, 12, None)
    _, text, _ = run(capsys, "evaluate", "radio", *shown, "--drop-duplicates")
    assert "without duplicates: no query is left whose class is in the reference" in text


def test_valid_is_judged_by_what_can_be_found(tmp_path, capsys):
    """Its images of a class that train lacks are left out, before the training rather than after it."""
    write_galaxies(tmp_path / "set", 40, seed=1)
    extra = tmp_path / "other"
    write_galaxies(extra, 40, seed=2)
    shutil.rmtree(tmp_path / "set" / "train" / "Bent")
    shutil.rmtree(extra / "valid")
    shutil.rmtree(extra / "test")
    out = tmp_path / "x.onnx"
    status, text, err = run(capsys, "train", "radio", tmp_path / "set", extra, "-o", out, "--epochs", 1, "--threads", 1)
    assert status == 0
    assert "2 images of valid left out, of a class that train lacks" in err
    assert "6 images of valid that are not in train: mAP" in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["evaluate", "radio", "--reference", "{set}", "--query", "nowhere", "--encoder", "{encoder}"], "nowhere"),
        (["evaluate", "radio", "--reference", "{set}", "--query", "{set}", "--encoder", "solar"], "solar: not an enc"),
        (["evaluate", "radio", "--reference", "{set}", "--query", "{set}", "--encoder", "{encoder}",
          "--query-split", "test"], "no folder named test"),
        (["evaluate", "radio", "--reference", "{set}", "--query", "{set}", "--encoder", "{encoder}",
          "--percentile", "101"], "--percentile: expected a number in [0, 100], got 101"),
        (["evaluate", "radio", "--reference", "{set}", "--query", "{set}", "--encoder", "{encoder}",
          "--gallery", "x.bmp"], "--gallery x.bmp"),
        (["evaluate", "radio", "--reference", "{set}", "--query", "{set}", "--encoder", "{encoder}",
          "-k", "0"], "-k:"),
        (["train", "radio", "{set}", "-o", "{out}", "--bits", "2"], "--bits: expected an integer in [4, 256], got 2"),
        (["train", "radio", "{set}", "-o", "{out}", "--preset", "none"], "--preset"),
        (["train", "radio", "--preset", "paper", "{set}", "-o", "x.pt"], "-o x.pt"),
        (["train", "radio", "{set}", "-o", "{out}", "--preset", "paper", "--weights", "nowhere.pth"],
         "nowhere.pth: no such file"),
        (["train", "radio", "{set}", "-o", "{out}", "--preset", "paper", "--weights", "{encoder}"],
         "r8.onnx: not a file of weights"),
        (["train", "radio", "{set}", "-o", "{out}", "--preset", "paper"], "no weights: put torchvision's"),
        (["train", "radio", "{set}", "-o", "{out}", "--weights", "w.pth"], "--weights: preset best"),
        (["train", "radio", "{set}", "-o", "{out}", "--patience", "0"], "--patience: expected an integer at least 1"),
        (["train", "radio", "{set}/train", "-o", "{out}", "--patience", "9"], "data/train has no images of valid"),
        (["train", "radio", "{set}", "-o", "{out}", "--preset", "paper", "--patience", "9"], "--patience: preset pap"),
        (["train", "radio", "{set}", "-o", "{out}", "--curves", "x.bmp"], "--curves x.bmp"),
        (["train", "radio", "{set}", "-o", "{out}", "--seed", "99999999999999"], "--seed: expected an integer in [0"),
        (["train", "radio", "{set}", "-o", "{out}"], "data: 4 classes are needed to learn from, got Compact, FRII, B"),
        (["evaluate", "radio", "--reference", "{set}/train/Bent", "--query", "{set}/valid/FRII", "--encoder",
          "{encoder}"], "valid/FRII: of its classes (FRII), --reference"),
        (["evaluate", "radio", "--reference", "{set}", "--query", "{set}", "--encoder", "{encoder}",
          "-k", "99999999999999999999"], "-k:"),
        (["simulate-radio", "{out}", "--count", "4", "--size", "10"], "--size: expected an integer in [32, 1024]"),
        (["simulate-radio", "{out}", "--count", "4", "--seed", "-1"], "--seed:"),
    ],
)  # fmt: skip
def test_failures_are_one_line_that_names_the_cause(arguments, named, folder, encoders, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    words = {"set": folder, "encoder": encoders[0], "out": tmp_path / "x.onnx"}
    status, out, err = run(capsys, *(argument.format(**words) for argument in arguments))
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (status, out) == (1, "")
    assert len(errors) == 1
    assert named in errors[0]


def test_help_teaches(capsys):
    for command in (("train", "radio"), ("evaluate", "radio")):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        assert f"example:\n  fasthash {' '.join(command)}" in capsys.readouterr().out
