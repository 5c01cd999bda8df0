"""The papers' descriptors of the Sun against their definitions."""

import numpy as np
import pytest
from scipy import stats

import fasthash as fh
from fasthash.io import Image, read_image
from fasthash.solar import baselines
from fasthash.solar.baselines import PARAMETERS, image_parameters
from fasthash.solar.simulator import simulate

WHITE = 100.0


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    """A simulated frame large enough for regions."""
    return read_image(simulate(tmp_path_factory.mktemp("sun"), "2014-05-01", 0.05, 120, 128, seed=3)[0])


def named(cells):
    return dict(zip(PARAMETERS, image_parameters(np.asarray(cells, np.float32), WHITE).T, strict=True))


def test_moments_and_histograms_by_their_definitions():
    rng = np.random.default_rng(0)
    cells = rng.gamma(1, 30, (5, 12, 17)).astype(np.float32) - 40
    found = named(cells)
    for i, cell in enumerate(cells):
        grey = np.clip(np.rint((cell + WHITE) * 255 / (2 * WHITE)), 0, 255).ravel().astype(np.float64)
        p = np.bincount(grey.astype(int), minlength=256) / grey.size
        sigma, kurtosis = grey.std(), stats.kurtosis(grey, fisher=False)
        expected = {
            "entropy": stats.entropy(p, base=2),
            "mean": grey.mean(),
            "standard deviation": sigma,
            "skewness": stats.skew(grey),
            "kurtosis": kurtosis,
            "uniformity": (p**2).sum(),
            "relative smoothness": 1 - 1 / (1 + grey.var() / 255**2),
            "Tamura contrast": sigma / kurtosis**0.25,
        }
        for name, value in expected.items():
            assert found[name][i] == pytest.approx(value, rel=1e-4), name


def test_a_cell_of_one_grey_has_no_texture():
    found = named([np.full((8, 8), 30.0), np.full((8, 8), np.nan), np.full((8, 8), 0.0)])
    for name in PARAMETERS:
        expected = {"mean": [166, 128, 128], "uniformity": [1, 1, 1]}.get(name, [0, 0, 0])
        np.testing.assert_allclose(found[name], expected, atol=1e-6, err_msg=name)


def test_fractal_dimensions_of_points_lines_and_planes():
    edges = np.zeros((4, 32, 32), bool)
    edges[1, 5, 7] = edges[2, 9] = edges[3] = True
    np.testing.assert_allclose(baselines._fractal_dimension(edges), [0, 0, 1, 2], atol=1e-9)
    assert baselines._fractal_dimension(np.ones((1, 13, 21), bool))[0] == pytest.approx(
        2, abs=0.2
    )  # boxes over the edge count whole


def test_directionality_of_stripes_and_of_noise():
    row, column = np.indices((32, 32))
    rng = np.random.default_rng(1)
    fields = np.sin(row / 2), np.sin(column / 2), np.sin((row + column) / 3), rng.standard_normal((32, 32))
    found = named(80 * np.stack(fields))["Tamura directionality"]
    assert (found[:3] > 0.95).all()
    assert found[3] < 0.8


def test_cells_are_in_order_of_rows():
    pixels = np.zeros((67, 66), np.float32)
    pixels[8:16, 16:24] = 50
    values = baselines.grid_parameters(Image(pixels)).reshape(8, 8, 10)
    np.testing.assert_array_equal(np.argwhere(values[..., 1] > 150), [[1, 2]])
    with pytest.raises(fh.ReadError, match=r"x\.fits: 30 x 40 pixels, too few for 8 x 8 cells"):
        baselines.grid_parameters(Image(np.zeros((40, 30), np.float32), "x.fits"))


def test_the_grid_hash_counts_what_is_active():
    pixels = np.zeros((100, 200), np.float32)
    pixels[42:48, 64:76] = -500
    cells = baselines.grid_hash(Image(pixels)).reshape(10, 10)
    np.testing.assert_array_equal(np.argwhere(cells), [[4, 3]])
    assert cells[4, 3] == pytest.approx(1, abs=0.5)  # of a cell's 200 pixels 72 are strong, more when blurred
    pixels[5, 5] = 900  # a lone pixel is noise
    np.testing.assert_array_equal(baselines.grid_hash(Image(pixels)).reshape(10, 10), cells)
    with pytest.raises(fh.ReadError, match="9 x 20 pixels"):
        baselines.grid_hash(Image(np.zeros((20, 9), np.float32)))


def test_a_thumbnail_keeps_what_is_where(frame):
    small = baselines.thumbnail(Image(np.kron(np.eye(4), np.full((8, 8), 70)).astype(np.float32)), 4)
    np.testing.assert_array_equal(small.reshape(4, 4).argmax(axis=1), np.arange(4))
    assert small.mean() == pytest.approx(70 / 4, rel=0.05)
    assert baselines.thumbnail(frame).shape == (64,)


def test_regions_become_signatures_and_words(frame):
    found = baselines.region_signatures(frame, 4)
    assert found.shape == (4, 10)
    there = np.isfinite(found).all(axis=1)
    assert there[0]
    assert (np.diff(there.astype(int)) <= 0).all()  # strongest first, then nothing
    many = np.concatenate([found[None], found[None] * 1.5, np.full((1, 4, 10), np.nan, np.float32)])
    histograms = baselines.region_words(many, words=3)(many)
    np.testing.assert_allclose((histograms**2).sum(axis=1), [there.sum(), there.sum(), 0], rtol=1e-6)
    with pytest.raises(fh.ReadError, match="no magnetic regions"):
        baselines.region_words(many[2:])


def test_pictures_are_flattened():
    row, column = np.indices((128, 128)) - 63.5
    distance = np.hypot(row, column) / 60
    grey = np.where(distance <= 1, 120 + 100 * np.sqrt(np.maximum(1 - distance**2, 0)), 0).astype(np.float32)
    grey[60:66, 70:76] -= 60
    seen = baselines.view(Image(grey, full_scale=255.0))
    assert abs(np.nanmedian(seen)) < 5
    assert np.nanmin(seen) == pytest.approx(-60 * 2000 / 255, rel=0.05)
    assert np.isnan(seen[0, 0])
