"""Labelled sets of radio galaxies: what is read from which tree, and which images show the same."""

import os
import zipfile
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from fasthash.errors import ArgumentError, ReadError
from fasthash.io import find_images, read_image
from fasthash.radio.cutout import Cutout
from fasthash.radio.dataset import (
    CLASSES,
    balanced,
    class_of,
    describe_set,
    duplicates,
    duplicates_report,
    label_of,
    make_set,
    originals,
    read_dataset,
    without,
    without_copies,
)
from fasthash.radio.sky import position_from_name, sky_pairs


def grey(seed, size=24):
    return np.random.default_rng(seed).integers(0, 256, (size, size), np.uint8)


def plant(root, **files):
    """Write pictures: a path with the folders' slashes to the seed of its pixels."""
    for name, seed in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(grey(seed)).save(path)
    return root


TREE = {
    "data/train/FRI/a.png": 1,
    "data/train/FRII/b.png": 2,
    "data/train/FRII/b (copy).png": 2,
    "data/train/Bent/c.png": 3,
    "data/train/Compact/d.png": 4,
    "data/valid/FRI/other-name.png": 1,
    "data/valid/Bent/e.png": 5,
    "data/test/FR1/f.png": 6,
    "data/test/FR2/g.png": 7,
}


@pytest.fixture
def tree(tmp_path):
    return plant(tmp_path, **TREE)


@pytest.fixture
def zipped(tree):
    path = tree / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in TREE:
            archive.write(tree / name, name)
    return path


# ---- reading -------------------------------------------------------------------------------------------------------


def test_folders_and_zips_give_the_same(tree, zipped):
    one, two = read_dataset(tree / "data"), read_dataset(zipped)
    assert len(one) == len(TREE)
    order = np.argsort([name.removeprefix(str(tree)) for name in one.names])
    np.testing.assert_array_equal(one.labels[order], two.labels)
    np.testing.assert_array_equal(one.digests[order], two.digests)
    np.testing.assert_array_equal(one.splits[order], two.splits)
    assert [name.removeprefix(f"{zipped}/") for name in two.names] == sorted(TREE)
    for image, name in zip(two.images, two.names, strict=True):
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, grey(TREE[name.removeprefix(f"{zipped}/")]))


@pytest.mark.parametrize(("split", "count"), [("train", 5), ("valid", 2), ("test", 2)])
def test_splits(tree, split, count):
    chosen = read_dataset(tree, split)
    assert len(chosen) == count
    assert set(chosen.splits) == {split}
    np.testing.assert_array_equal(chosen.names, read_dataset(tree).split(split).names)
    # The folder of a split, and that of a class in it, are sets as well.
    np.testing.assert_array_equal(read_dataset(tree / "data" / split, split).names, chosen.names)
    folder = os.path.dirname(chosen.names[0])
    assert set(read_dataset(folder, split).labels) == {class_of(os.path.basename(folder))}


def test_names_of_test_folders_are_those_of_train(tree):
    assert read_dataset(tree, "test").labels.tolist() == ["FRI", "FRII"]


def test_class_folders_without_a_split(tmp_path):
    plant(tmp_path, **{"griese/Bent/x.png": 1, "griese/FRI/y.png": 2})
    found = read_dataset(tmp_path / "griese")
    assert found.labels.tolist() == ["Bent", "FRI"]
    assert found.splits.tolist() == ["", ""]
    with pytest.raises(ReadError, match=r"no folder named train in it \(found: no split at all\)"):
        read_dataset(tmp_path, "train")


@pytest.mark.parametrize(
    ("folder", "label"),
    [("FRI", "FRI"), ("FR1", "FRI"), ("fr-ii", "FRII"), ("FR 2", "FRII"), ("BENT", "Bent"), ("compact", "Compact"),
     ("FR3", ""), ("", ""), ("frames", ""), ("FRIII", "")],
)  # fmt: skip
def test_spellings_of_classes(folder, label):
    assert class_of(folder) == label
    assert label_of(f"/somewhere/{folder}/x.png") == label
    assert label_of(f"/somewhere/set.zip/{folder}/x.png") == label


def test_a_folder_of_no_class_is_named(tree):
    plant(tree, **{"data/train/FR3/x.png": 8})
    with pytest.raises(ReadError, match=r"data/train/FR3: a folder of images named after no class; expected Compact,"):
        read_dataset(tree)


@pytest.mark.parametrize("wrong", ["nowhere", "empty", "empty.zip"])
def test_nothing_to_read_is_one_line(tmp_path, wrong):
    (tmp_path / "empty").mkdir()
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    with pytest.raises(ReadError, match=wrong):
        read_dataset(tmp_path / wrong)


def test_damaged_and_blank_images_are_left_out_and_named(tree):
    (tree / "data/train/FRI/cut.png").write_bytes((tree / "data/train/FRI/a.png").read_bytes()[:200])
    Pillow.new("L", (24, 24), 17).save(tree / "data/train/FRI/blank.png")
    found = read_dataset(tree)
    assert len(found) == len(TREE)
    blank, cut = sorted(found.problems)
    assert "blank.png: nothing in it: every pixel is 17" in blank
    assert "cut.png" in cut


def test_fits_of_other_pixels_are_left_out(tmp_path):
    from astropy.io import fits

    (tmp_path / "FRI").mkdir()
    for name, scale in (("first", 1.8), ("coarse", 5.0)):
        header = fits.Header({"CDELT1": -scale / 3600, "CDELT2": scale / 3600})
        fits.writeto(tmp_path / "FRI" / f"{name}.fits", grey(1).astype(np.float32), header)
    found = read_dataset(tmp_path)
    assert [os.path.basename(name) for name in found.names] == ["first.fits"]
    assert [line.partition(": ")[2] for line in found.problems] == ["pixels of 5 arcseconds; those of a set have 1.8"]


def test_a_set_of_nothing_but_damaged_images(tmp_path):
    plant(tmp_path, **{"FRI/a.png": 1})
    (tmp_path / "FRI/a.png").write_bytes(b"no picture")
    with pytest.raises(ReadError, match=r"none of its 1 images can be used.*a\.png"):
        read_dataset(tmp_path)


def test_wrong_arguments(tree):
    with pytest.raises(ArgumentError, match="split: expected one of train, valid, test, got 'all'"):
        read_dataset(tree, "all")
    with pytest.raises(ArgumentError, match="expected a path"):
        read_dataset(3)
    with pytest.raises(ArgumentError, match=r"labels\[0\]: expected one of Compact, FRI, FRII, Bent, got 'FR1'"):
        make_set([np.ones((2, 2), np.float32)], ["FR1"], ["x"])
    with pytest.raises(ArgumentError, match="1 images, 2 labels, 1 names"):
        make_set([np.ones((2, 2), np.float32)], ["FRI", "FRI"], ["x"])


def test_rows_of_fits_run_down_like_those_of_pictures(tmp_path):
    from astropy.io import fits

    (tmp_path / "FRI").mkdir()
    fits.writeto(tmp_path / "FRI" / "a.fits", grey(1)[::-1].astype(np.float32))
    plant(tmp_path, **{"FRI/b.png": 1})
    found = read_dataset(tmp_path)
    np.testing.assert_array_equal(*found.images)
    assert found.digests[0] == found.digests[1]


# ---- positions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ra", "dec"),
    [
        ("J000331.21+002804.3.jpg", 0.880042, 0.467861),
        ("a.zip/data/FRI/J235959.99-895959.9 (copy).jpeg", 359.999958, -89.999972),
        ("J103213.00-003000.0.fits", 158.054167, -0.5),
        ("x/0.878_0.466_3_Proctor_Tab1.png", 0.878, 0.466),
        ("22.446_-0.776_3_x.png", 22.446, -0.776),
        ("sim-0-000001.png", np.nan, np.nan),
        ("J990000.00+000000.0.png", np.nan, np.nan),
        ("400.5_3.5_x.png", np.nan, np.nan),
    ],
)
def test_positions_in_names(name, ra, dec):
    np.testing.assert_allclose(position_from_name(name), (ra, dec), atol=2e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1, 3600))
def test_pairs_on_the_sky_against_the_great_circle(seed, radius):
    rng = np.random.default_rng(seed)
    centre = [rng.uniform(0, 360), np.degrees(np.arcsin(rng.uniform(-1, 1)))]
    near = [centre + rng.normal(0, radius / 3600, (8, 2)) for _ in range(2)]
    one, two = (np.stack([each[:, 0] % 360, np.clip(each[:, 1], -90, 90)], axis=1) for each in near)
    one[3], two[5] = np.nan, np.nan
    ra, dec = np.radians(one[:, None, 0] - two[:, 0]), np.radians([one[:, 1], two[:, 1]])
    # Vincenty's formula, which is good at all distances.
    a = np.cos(dec[1]) * np.sin(ra)
    b = np.cos(dec[0])[:, None] * np.sin(dec[1]) - np.sin(dec[0])[:, None] * np.cos(dec[1]) * np.cos(ra)
    c = np.sin(dec[0])[:, None] * np.sin(dec[1]) + np.cos(dec[0])[:, None] * np.cos(dec[1]) * np.cos(ra)
    apart = 3600 * np.degrees(np.arctan2(np.hypot(a, b), c))
    found = {tuple(pair) for pair in sky_pairs(one, two, radius).tolist()}
    assert {tuple(pair) for pair in np.argwhere(apart < radius * (1 - 1e-6)).tolist()} <= found
    assert found <= {tuple(pair) for pair in np.argwhere(apart < radius * (1 + 1e-6)).tolist()}


@pytest.mark.parametrize("radius", [-1, 4000, np.nan])
def test_wrong_radius(radius):
    with pytest.raises(ArgumentError, match="radius"):
        sky_pairs(np.zeros((1, 2)), np.zeros((1, 2)), radius)


# ---- copies and twins ----------------------------------------------------------------------------------------------


def of(*rows):
    """A set of (name, label, seed of its pixels, split) rows."""
    names, labels, seeds, splits = zip(*rows, strict=True)
    return make_set([grey(seed, 8).astype(np.float32) for seed in seeds], labels, names, splits)


FIRST = "J100000.00+100000.0"
NEAR = "J100001.00+100000.0"  # 15" further east
FAR = "J100010.00+100000.0"


def test_originals_go_by_name_and_by_pixels(tree):
    found = read_dataset(tree)
    assert len(without_copies(found)) == len(TREE) - 1
    kept = originals(found)
    assert len(kept) == len(TREE) - 2
    assert not any("copy" in name for name in kept.names)
    assert len(set(kept.digests)) == len(kept)
    assert set(kept.digests) == set(found.digests)


def test_copies_whatever_a_desktop_calls_them():
    names = ["a (copy).jpg", "a (copy 2).jpg", "a (3rd copy).jpg", "a (another copy).jpg", "copyright.jpg", "a.jpg"]
    kept = without_copies(of(*((name, "FRI", i, "") for i, name in enumerate(names))))
    assert kept.names.tolist() == ["copyright.jpg", "a.jpg"]


def test_without_goes_by_pixels_and_by_sky():
    ours = of(("x.png", "FRI", 1, ""), (f"{FIRST}.png", "FRI", 2, ""), (f"{FAR}.png", "FRI", 3, ""))
    theirs = of(("y.png", "FRI", 1, ""), (f"{NEAR}.png", "FRII", 9, ""))
    assert without(ours, theirs).names.tolist() == [f"{FAR}.png"]
    assert without(ours, theirs, 14).names.tolist() == [f"{FIRST}.png", f"{FAR}.png"]
    assert without(ours, theirs, 0).names.tolist() == [f"{FIRST}.png", f"{FAR}.png"]
    assert without(ours, theirs.take([])).names.tolist() == ours.names.tolist()
    assert len(without(ours, ours, 0)) == 0


def test_duplicates_are_grouped_and_contradictions_told():
    found = of(
        ("a.png", "FRI", 1, "train"),
        (f"{FIRST}.png", "FRI", 2, "train"),
        ("b.png", "FRI", 1, "valid"),
        (f"{NEAR}.png", "Bent", 3, "train"),
        ("c.png", "FRII", 4, "train"),
    )
    pixels, sky = duplicates(found)
    assert (pixels.names, pixels.to_the_pixel, pixels.across, pixels.contradictory) == (
        ("a.png", "b.png"), True, True, False,
    )  # fmt: skip
    assert (sky.names, sky.labels, sky.to_the_pixel, sky.across) == (
        (f"{FIRST}.png", f"{NEAR}.png"), ("FRI", "Bent"), False, False,
    )  # fmt: skip
    assert sky.contradictory
    assert duplicates_report(found).splitlines() == [
        "5 images, 4 of them originals",
        "1 groups equal to the pixel, 1 of them across splits",
        "1 groups of one source, not to the pixel, 0 of them across splits",
        f"labels differ: {FIRST}.png (FRI), {NEAR}.png (Bent)",
    ]
    assert duplicates(found.take([])) == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(CLASSES), min_size=1, max_size=60), st.integers(0, 99))
def test_balanced_fills_up_to_the_largest_class(labels, seed):
    plain = of(*((f"{i}.png", label, i, "") for i, label in enumerate(labels)))
    filled = balanced(plain, seed)
    largest = max(Counter(labels).values())
    assert Counter(filled.labels.tolist()) == dict.fromkeys(labels, largest)
    assert filled.names[: len(plain)].tolist() == plain.names.tolist()
    for label in set(labels):  # as evenly as can be
        times = Counter(filled.names[filled.labels == label].tolist())
        assert max(times.values()) - min(times.values()) <= 1
    np.testing.assert_array_equal(filled.names, balanced(plain, seed).names)


def test_describe_set_tells_what_it_left_out(tmp_path):
    (tmp_path / "FRI").mkdir()
    for i, size in enumerate((24, 8, 30)):
        picture = np.zeros((size, size), np.uint8)
        picture[size // 2, size // 2 - i] = 99
        Pillow.fromarray(picture).save(tmp_path / "FRI" / f"{size}.png")
    found = read_dataset(tmp_path)
    front_end = Cutout(16, None)
    rows, kept, problems = describe_set(found, front_end)
    assert rows.shape == (2, 16, 16)
    assert [os.path.basename(name) for name in kept.names] == ["24.png", "30.png"]
    assert [line.partition(": ")[2] for line in problems] == ["8 x 8 pixels; expected at least 16 a side"]
    for row, name in zip(rows, kept.names, strict=True):
        np.testing.assert_array_equal(row, front_end.describe(read_image(name)))
    with pytest.raises(ReadError, match="8 x 8 pixels"):
        describe_set(found.take([2]), front_end)


# ---- the published sets --------------------------------------------------------------------------------------------


def test_what_is_known_of_the_published_set(real_radio):
    found = read_dataset(real_radio / "data.zip")
    train, valid = found.split("train"), found.split("valid")
    assert (len(train), len(valid), found.problems) == (1180, 398, ())
    assert train.counts() == {"Compact": 226, "FRI": 215, "FRII": 434, "Bent": 305}
    assert np.isfinite(found.positions).all()
    assert len(valid) - len(without(valid, train, 0)) == 184
    assert len(without(valid, train)) <= 214
    assert len(originals(train)) == 1164
    assert len(balanced(train)) == 4 * 434


def test_what_is_known_of_the_balanced_set(real_radio):
    paths = [path for path in find_images(real_radio / "data-balanced.zip")[0] if "/train/" in path]
    train = make_set([np.ones((1, 1), np.float32)] * len(paths), [label_of(path) for path in paths], paths)
    assert len(train) == 1728
    assert without_copies(train).counts() == {"Compact": 226, "FRI": 215, "FRII": 434, "Bent": 305}
