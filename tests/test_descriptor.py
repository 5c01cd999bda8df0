"""GridHistogram counts what numpy.histogram counts, cell by cell."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import grid_histogram

import fasthash as fh

RANGES = [(-1000.0, 1000.0), (0.0, 1.0), (-0.3, 0.7), (1e-3, 1e6), (-5.0, 5.5), (0.0, 256.0)]
DTYPES = ["f4", "f8", "f2", "i2", ">f4", ">i4", "u1"]


def assert_same(grid, images):
    expected = np.stack([grid_histogram(image, grid) for image in images])
    np.testing.assert_array_equal(grid.transform(images), expected)


@given(
    data=st.data(),
    rows=st.integers(1, 7),
    cols=st.integers(1, 7),
    bins=st.sampled_from([1, 2, 15, 16, 64, 65, 300]),
    value_range=st.sampled_from(RANGES),
    outside=st.sampled_from(["drop", "clip"]),
    dtype=st.sampled_from(["f4", "f8"]),
)
@settings(max_examples=60, deadline=None)
def test_equals_numpy_histogram(data, rows, cols, bins, value_range, outside, dtype):
    grid = fh.GridHistogram(rows, cols, bins, value_range, outside)
    # Edges, their neighbours, infinities and NaN are where counting goes wrong.
    edges = np.histogram_bin_edges(np.empty(0, dtype), bins, value_range).astype(dtype)
    special = np.concatenate(
        [edges, np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf), [np.nan, np.inf, -np.inf]]
    )
    shape = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 40), st.integers(1, 90)))
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    spread = value_range[1] - value_range[0]
    images = rng.uniform(value_range[0] - spread / 4, value_range[1] + spread / 4, shape).astype(dtype)
    chosen = rng.random(shape) < 0.5
    images[chosen] = rng.choice(special, chosen.sum()).astype(dtype)
    assert_same(grid, images)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value_range", RANGES)
def test_every_type_is_binned_as_numpy_does(dtype, value_range):
    rng = np.random.default_rng(3)
    image = rng.uniform(-5 if dtype != "u1" else 0, 5, (61, 77)).astype(dtype)
    if (dtype, value_range[1]) == ("f2", 1e6):
        pytest.skip("half precision ends at 65,504")
    assert_same(fh.GridHistogram(3, 4, 10, value_range), image[np.newaxis])


@given(hnp.arrays("f4", hnp.array_shapes(min_dims=2, max_dims=2, max_side=30), elements=st.floats(width=32)))
@settings(max_examples=50, deadline=None)
def test_any_float32_image(image):
    assert_same(fh.GridHistogram(), image[np.newaxis])


@pytest.mark.parametrize("width", [1, 31, 32, 33, 8192, 70_001])
def test_widths_around_vectors_and_counters(width):
    image = np.zeros((2, width), "f4")
    image[:, ::7] = 999
    assert_same(fh.GridHistogram(1, 1), image[np.newaxis])


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_threads_change_nothing(threads):
    images = np.random.default_rng(0).normal(0, 300, (3, 515, 333)).astype("f4")
    grid = fh.GridHistogram()
    np.testing.assert_array_equal(grid.transform(images, num_threads=threads), grid.transform(images, num_threads=1))


def test_strided_read_only_and_single_images():
    base = np.random.default_rng(0).normal(0, 300, (100, 120)).astype("f4")
    base.flags.writeable = False
    grid = fh.GridHistogram()
    for view in (base, base[::2, ::3], base[::-1, ::-1], np.asfortranarray(base), base.T):
        np.testing.assert_array_equal(grid.transform(view), grid_histogram(view, grid)[np.newaxis])


def test_shape_dtype_and_sum():
    counts = fh.GridHistogram().transform(np.zeros((2, 50, 50), "f4"))
    assert counts.shape == (2, 400)
    assert counts.dtype == np.uint32
    assert counts.sum() == 2 * 50 * 50
    assert fh.GridHistogram(2, 3, 4).size == 24


@pytest.mark.parametrize("shape", [(0, 20, 20), (1, 0, 20), (3, 20, 0)])
def test_empty_images_count_nothing(shape):
    counts = fh.GridHistogram().transform(np.empty(shape, "f4"))
    assert counts.shape == (shape[0], 400)
    assert not counts.any()


def test_images_smaller_than_the_grid():
    image = np.ones((3, 2), "f4")
    assert_same(fh.GridHistogram(), image[np.newaxis])


def test_calls_from_many_threads_at_once():
    images = np.random.default_rng(1).normal(0, 300, (8, 200, 200)).astype("f4")
    grid = fh.GridHistogram()
    expected = grid.transform(images)
    results = [None] * 8

    def work(i):
        results[i] = grid.transform(images[i])[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(np.stack(results), expected)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"rows": 0}, "rows"),
        ({"cols": 2.5}, "cols"),
        ({"bins": 0}, "bins"),
        ({"bins": 65_535}, "bins"),
        ({"bins": True}, "bins"),
        ({"value_range": (1, 1)}, "value_range"),
        ({"value_range": (0, np.inf)}, "value_range"),
        ({"value_range": 3}, "value_range"),
        ({"outside": "wrap"}, "outside"),
    ],
)
def test_wrong_settings_are_named(arguments, name):
    with pytest.raises(fh.ArgumentError, match=name):
        fh.GridHistogram(**arguments)


@pytest.mark.parametrize(
    "images",
    [
        np.ma.masked_array(np.zeros((9, 9)), True),
        np.zeros(5),
        np.zeros((1, 1, 2, 2)),
        np.zeros((4, 4), complex),
        np.array([["a"]]),
        None,
        "x.fits",
    ],
)
def test_wrong_images_are_refused(images):
    with pytest.raises(fh.ArgumentError, match="images"):
        fh.GridHistogram().transform(images)


def test_a_range_too_fine_for_the_pixels_is_refused():
    with pytest.raises(fh.ArgumentError, match="float16 cannot tell 10 bins"):
        fh.GridHistogram(bins=10, value_range=(1000.0, 1000.5)).transform(np.zeros((4, 4), "f2"))


def test_wrong_thread_count_is_refused():
    with pytest.raises(fh.ArgumentError, match="num_threads"):
        fh.GridHistogram().transform(np.zeros((4, 4)), num_threads=0)
