"""Simulated radio galaxies: what tells the classes apart is in them, and the same seed gives the same files."""

import numpy as np
import pytest
from PIL import Image as Pillow
from scipy import ndimage

from fasthash.cli import main
from fasthash.errors import ArgumentError
from fasthash.io import Image
from fasthash.radio.compare import measure, measure_set, sheet, table
from fasthash.radio.cutout import Cutout
from fasthash.radio.dataset import CLASSES, read_dataset
from fasthash.radio.simulator import BEAM, Blobs, draw_galaxy, simulate_galaxies, write_galaxies


@pytest.fixture(scope="module")
def galaxies():
    return simulate_galaxies(240, seed=2)


def blobs(rng, n):
    return Blobs(rng.normal(0, 12, (n, 2)), rng.random(n), rng.uniform(0, 3, n))


# ---- drawing -------------------------------------------------------------------------------------------------------


def test_drawing_against_one_gaussian_after_another():
    source = blobs(np.random.default_rng(0), 20)
    expected = np.zeros((40, 40))
    for (x, y), flux, width in zip(source.place, source.flux, source.width, strict=True):
        for row in range(40):
            for column in range(40):
                far2 = (column - 19.5 - x) ** 2 + (row - 19.5 - y) ** 2
                sigma2 = width**2 + BEAM**2
                expected[row, column] += flux * BEAM**2 / sigma2 * np.exp(-far2 / (2 * sigma2))
    np.testing.assert_allclose(source.draw(40), expected, atol=1e-12)


def test_a_point_has_its_peak_and_the_beam_of_first():
    image = Blobs(np.array([[0.5, 0.5]]), np.array([3.0]), np.array([0.0])).draw(64)
    assert image.max() == pytest.approx(3.0)
    half = image[32] > 1.5  # 5.4 arcseconds of 1.8 each: three pixels, counted by their middles
    assert half.sum() == 3


def test_turning_keeps_all_but_the_places():
    source = blobs(np.random.default_rng(1), 30)
    turned = source.turned(np.pi / 2)
    np.testing.assert_allclose(turned.place, np.stack([-source.place[:, 1], source.place[:, 0]], axis=1), atol=1e-12)
    np.testing.assert_allclose(turned.draw(60), np.rot90(source.draw(60), -1), atol=1e-12)


@pytest.mark.parametrize("label", CLASSES)
def test_the_noise_is_one_and_smooth(label):
    pixels = np.stack([draw_galaxy(label, np.random.default_rng(i), 256) for i in range(8)])
    corner = pixels[:, :64, :64]  # beyond most sources
    spread = 1.4826 * np.median(np.abs(corner - np.median(corner)))
    assert spread == pytest.approx(1, abs=0.08)
    step = 1.4826 * np.median(np.abs(np.diff(corner, axis=2)))
    assert step < 0.8 * spread  # neighbours are alike: that of white noise is 1.41


# ---- the set -------------------------------------------------------------------------------------------------------


def test_images_are_as_published(galaxies):
    assert len(galaxies) == 240
    assert set(galaxies.counts().values()) == {60}
    assert {split: (galaxies.splits == split).sum() for split in ("train", "valid", "test")} == {
        "train": 144, "valid": 48, "test": 48,
    }  # fmt: skip
    for label in CLASSES:
        assert set(galaxies.splits[galaxies.labels == label]) == {"train", "valid", "test"}
    for image in galaxies.images:
        assert image.shape == (150, 150)
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, np.rint(image))
        assert (image.min(), image.max()) == (0, 255)
        assert np.mean(image == 0) > 0.5
    assert len(set(galaxies.digests)) == len(galaxies)


def test_the_first_of_more_are_the_same_and_another_seed_is_another_set(galaxies):
    fewer = simulate_galaxies(10, seed=2)
    np.testing.assert_array_equal(fewer.digests, galaxies.digests[:10])
    assert not set(simulate_galaxies(10, seed=3).digests) & set(galaxies.digests)


def test_what_tells_the_classes_apart(galaxies):
    medians = {label: np.median(rows, axis=0) for label, rows in measure_set(galaxies).items()}
    concentration, radius, _, _, peak, _ = ({label: medians[label][i] for label in CLASSES} for i in range(6))
    assert concentration["Compact"] > 0.85
    assert max(concentration[label] for label in CLASSES[1:]) < 0.6
    assert radius["Compact"] < 2.5 < 5 < min(radius[label] for label in CLASSES[1:])
    # Fanaroff and Riley: in an FRI the peak is near the middle of the flux, in an FRII far from it.
    assert peak["FRI"] / radius["FRI"] < 0.35 < 0.55 < peak["FRII"] / radius["FRII"]


def test_measures_of_a_source_that_is_known():
    """Two equal Gaussians, 20 pixels apart along a row."""
    y, x = np.mgrid[:80, :80] - 39
    image = sum(np.exp(-0.5 * (y**2 + (x - side) ** 2) / 4) for side in (-10, 10)).astype(np.float32)
    near, radius, ratio, peaks, from_middle, area = measure(image)
    assert peaks == 2
    assert radius == pytest.approx(np.sqrt(10**2 + 2 * 4), rel=0.02)
    assert ratio == pytest.approx(2 / np.sqrt(10**2 + 4), rel=0.1)
    assert from_middle == pytest.approx(10, abs=0.8)
    assert near == pytest.approx(0.5 * (1 - np.exp(-0.5 * 9 / 4)), abs=0.1)
    assert area == pytest.approx(100 * 2 * np.pi * 2 * np.log(1 / 0.03) * 4 / 6400, rel=0.05)


def test_the_sheet_and_the_table_hold_every_class(galaxies):
    real, simulated = galaxies.take(np.arange(120)), galaxies.take(np.arange(120, 240))
    picture = sheet(real, simulated, columns=5)
    assert picture.shape == (8 * 92, 5 * 92)
    assert picture.dtype == np.uint8
    lines = table(real, simulated).splitlines()
    assert [line[:18].rstrip() for line in lines[1:]] == [
        f"{label}, {name}" for label in CLASSES for name in ("real", "simulated")
    ]
    assert len(table(real, simulated.take(simulated.labels != "FRI")).splitlines()) == 7


def principal_line(image):
    """How far the flux is from its principal line, in units of how far it reaches along it; signed."""
    image = np.where(image > 0.05, image, 0)
    pieces, n = ndimage.label(ndimage.binary_dilation(image > 0, iterations=4))
    image = image * (pieces == 1 + np.argmax(ndimage.sum(image, pieces, np.arange(1, n + 1))))
    places = np.argwhere(image > 0) - 39.5
    weights = image[image > 0]
    places = places - np.average(places, axis=0, weights=weights)
    _, vectors = np.linalg.eigh(np.cov(places.T, aweights=weights))
    across, along = (places @ vectors).T
    return abs(np.average(np.sign(across) * across**2, weights=weights)), np.average(along**2, weights=weights)


def test_tails_are_bent_and_lobes_are_not():
    """The middle of a bent source lies to one side of its ends: its flux is skew about the principal line."""
    front_end = Cutout(80, 80)
    curved = {}
    for label in ("FRII", "Bent"):
        skews = [
            principal_line(front_end.describe(Image(draw_galaxy(label, np.random.default_rng(i)))))
            for i in range(60)
        ]  # fmt: skip
        curved[label] = np.median([skew / along for skew, along in skews])
    assert curved["Bent"] > 2 * curved["FRII"]


# ---- files and the command -----------------------------------------------------------------------------------------


def test_files_hold_what_was_simulated(tmp_path):
    paths = write_galaxies(tmp_path / "out", 24, seed=5)
    made, found = simulate_galaxies(24, seed=5), read_dataset(tmp_path / "out")
    assert [str(path.relative_to(tmp_path / "out")) for path in paths] == made.names.tolist()
    by_name = {name.removeprefix(f"{tmp_path}/out/"): i for i, name in enumerate(found.names)}
    order = [by_name[name] for name in made.names]
    np.testing.assert_array_equal(found.digests[order], made.digests)
    np.testing.assert_array_equal(found.labels[order], made.labels)
    np.testing.assert_array_equal(found.splits[order], made.splits)
    with Pillow.open(paths[0]) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (150, 150))


def test_the_command(tmp_path, capsys):
    assert main(["simulate-radio", str(tmp_path / "g"), "--count", "8", "--seed", "1", "--size", "64"]) == 0
    assert capsys.readouterr() == (f"8 simulated radio galaxies in {tmp_path / 'g'}\n", "")
    assert len(read_dataset(tmp_path / "g", "train")) == 4
    (tmp_path / "file").write_text("")
    for out, count, message in (("g", "0", "--count"), ("file", "4", f"{tmp_path / 'file'}/")):
        assert main(["simulate-radio", str(tmp_path / out), "--count", count]) == 1
        text, err = capsys.readouterr()
        assert (text, err.count("\n")) == ("", 1)
        assert err.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("wrong", "name"), [((0, 0, 150), "count"), ((1, -1, 150), "seed"), ((1, 0, 8), "size"), ((2.5, 0, 150), "count")]
)
def test_wrong_arguments(wrong, name):
    with pytest.raises(ArgumentError, match=name):
        simulate_galaxies(*wrong)
    with pytest.raises(ArgumentError, match="label"):
        draw_galaxy("FR1", np.random.default_rng(0))
