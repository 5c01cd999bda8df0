import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasthash.codes import binarize, binarize_percentile, binarize_phases, pack_bits, unpack_bits
from fasthash.errors import ArgumentError


@given(
    n=st.integers(0, 5),
    n_bits=st.integers(1, 700),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([bool, np.uint8, np.int64]),
)
def test_unpacking_undoes_packing(n, n_bits, seed, dtype):
    bits = np.random.default_rng(seed).integers(0, 2, (n, n_bits)).astype(dtype)
    codes = pack_bits(bits)
    assert codes.shape == (n, -(-n_bits // 8))
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(codes, np.packbits(bits, axis=1))
    np.testing.assert_array_equal(unpack_bits(codes, n_bits), bits)


def test_bit_order_is_that_of_packbits():
    assert pack_bits(np.array([1, 0, 0, 0, 0, 0, 0, 0, 0, 1], bool)).tolist() == [0b10000000, 0b01000000]


def test_one_code_keeps_its_shape():
    bits = np.array([0, 1, 1], np.uint8)
    assert pack_bits(bits).shape == (1,)
    assert unpack_bits(pack_bits(bits), 3).tolist() == [0, 1, 1]
    assert binarize(np.float32([0, 1, 2]), 0.5).shape == (1,)
    assert binarize_percentile(np.float32([0, 1, 2])).shape == (1,)


def test_strided_and_read_only_bits():
    bits = np.random.default_rng(0).integers(0, 2, (12, 40)).astype(np.uint8)
    bits.flags.writeable = False
    np.testing.assert_array_equal(pack_bits(bits[::3, ::2]), np.packbits(bits[::3, ::2].copy(), axis=1))
    codes = pack_bits(bits)
    np.testing.assert_array_equal(unpack_bits(codes[::2], 40), bits[::2])


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        (np.zeros((2, 8), np.float32), "bits: expected bool or integers, got float32"),
        (np.array([[0, 2]], np.uint8), "bits: expected only 0 and 1, got 0 to 2"),
        (np.array([[0, -1]]), "bits: expected only 0 and 1, got -1 to 0"),
        (np.zeros((2, 2, 2), bool), "bits: expected shape"),
        (np.zeros((2, 0), bool), "bits: expected shape"),
        (np.bool_(True), "bits: expected shape"),
    ],
)
def test_bad_bits_are_refused(bits, message):
    with pytest.raises(ArgumentError, match=message):
        pack_bits(bits)


@pytest.mark.parametrize(
    ("codes", "n_bits", "message"),
    [
        (np.zeros((2, 2), np.uint8), 8, "codes: expected 1 bytes, got 2"),
        (np.zeros((2, 1), np.uint8), 9, "codes: expected 2 bytes, got 1"),
        (np.zeros((2, 1), np.int8), 8, "codes: expected dtype uint8, got int8"),
        (np.zeros((2, 1), np.uint8), 0, "n_bits: expected an integer at least 1"),
        (np.zeros((2, 1), np.uint8), 8.0, "n_bits: expected an integer"),
        (np.array([[0x80], [0x01]], np.uint8), 7, "codes: expected zero in the last 1 bits .* row 1"),
    ],
)
def test_bad_codes_are_refused(codes, n_bits, message):
    with pytest.raises(ArgumentError, match=message):
        unpack_bits(codes, n_bits)


@given(n=st.integers(0, 5), d=st.integers(1, 70), seed=st.integers(0, 99))
def test_binarize_compares_each_bit_with_its_threshold(n, d, seed):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(-3, 4, (n, d)).astype(np.float32)  # small integers, so that many are equal to a threshold
    thresholds = rng.integers(-3, 4, d).astype(np.float32)
    np.testing.assert_array_equal(unpack_bits(binarize(hashes, thresholds), d), hashes > thresholds)
    np.testing.assert_array_equal(unpack_bits(binarize(hashes, 1), d), hashes > 1)


@given(n=st.integers(0, 5), d=st.integers(1, 9), n_bits=st.integers(1, 70), seed=st.integers(0, 99))
def test_a_projection_comes_before_the_thresholds(n, d, n_bits, seed):
    rng = np.random.default_rng(seed)
    hashes, projection = rng.integers(-3, 4, (n, d)).astype(np.float32), rng.integers(-2, 3, (n_bits, d))
    thresholds = rng.integers(-3, 4, n_bits)
    expected = [[row @ column > level for column, level in zip(projection, thresholds, strict=True)] for row in hashes]
    bits = unpack_bits(binarize(hashes, thresholds, projection), n_bits)
    np.testing.assert_array_equal(bits, np.reshape(expected, (n, n_bits)))


@given(st.integers(0, 6), st.integers(1, 5), st.integers(1, 9), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_codes_of_phases_differ_by_the_sectors_between_them(n, d, phases, m, seed):
    rng = np.random.default_rng(seed)
    hashes, projection = rng.normal(size=(n, d)).astype(np.float32), rng.normal(size=(phases, d))
    offsets = rng.uniform(-3, 3, phases)
    bits = unpack_bits(binarize_phases(hashes, projection, offsets, m), phases * m).astype(int)
    turns = hashes.astype(float) @ projection.T + offsets  # half turns
    each = [np.floor(turns + j / m) % 2 for j in range(m)]
    near = abs(turns * m - np.round(turns * m)) < 1e-9  # x + j / m may be rounded over an edge
    assert ((bits.reshape(n, phases, m) == np.stack(each, axis=2)) | near[..., np.newaxis]).all()
    sectors = np.floor(turns * m)
    apart = (sectors[:, None] - sectors) % (2 * m)
    expected = np.minimum(apart, 2 * m - apart).sum(2)
    np.testing.assert_array_equal((bits[:, None] != bits).sum(2), expected)


def test_binarize_does_not_round_thresholds():
    tenth = np.float32(0.1)  # a little more than 0.1
    assert binarize(tenth.reshape(1, 1), 0.1) == 0x80
    assert binarize(tenth.reshape(1, 1), tenth) == 0x00


@given(n=st.integers(0, 5), d=st.integers(1, 70), percentile=st.floats(0, 100), seed=st.integers(0, 99))
def test_percentile_is_of_each_image(n, d, percentile, seed):
    hashes = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    expected = [row >= np.percentile(row.astype(float), percentile) for row in hashes]
    bits = unpack_bits(binarize_percentile(hashes, percentile), d)
    np.testing.assert_array_equal(bits, np.reshape(expected, (n, d)))


def test_the_median_sets_half_of_the_bits():
    hashes = np.random.default_rng(1).random((9, 64)).astype(np.float32)
    assert (unpack_bits(binarize_percentile(hashes), 64).sum(axis=1) == 32).all()


def test_saturated_units_are_ones():
    hashes = np.float32([[1, 1, 1, 1, 1, 0.2, 0.1, 0], [0.9, 1, 0, 0, 0, 0.8, 0.7, 0.2]])
    assert unpack_bits(binarize_percentile(hashes), 8).tolist() == [[1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 1, 1, 0]]


def test_percentiles_of_projected_values():
    rng = np.random.default_rng(2)
    hashes, projection = rng.normal(size=(7, 5)).astype(np.float32), rng.normal(size=(12, 5))
    values = hashes.astype(float) @ projection.T
    expected = values >= np.percentile(values, 30, axis=1, keepdims=True)
    np.testing.assert_array_equal(unpack_bits(binarize_percentile(hashes, 30, projection), 12), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h: binarize(h.astype(float), 0.0), "hashes: expected dtype float32"),
        (lambda h: binarize(h * np.float32("nan"), 0.0), "hashes: row 0 holds NaN"),
        (lambda h: binarize(h, np.zeros(3)), "thresholds: expected one number or shape"),
        (lambda h: binarize(h, np.zeros((2, 4))), "thresholds: expected one number or shape"),
        (lambda h: binarize(h, np.nan), "thresholds: expected finite"),
        (lambda h: binarize(h, "0.5"), "thresholds: expected real numbers"),
        (lambda h: binarize(h, 0.0, np.ones((8, 3))), r"projection: expected real numbers \(n_bits, 4\), got float64"),
        (lambda h: binarize(h, 0.0, np.full((8, 4), np.inf)), "projection: expected finite"),
        (lambda h: binarize(h, np.zeros(4), np.ones((8, 4))), r"thresholds: expected one number or shape \(8,\)"),
        (lambda h: binarize_phases(h, np.ones((8, 4)), np.zeros(4), 4), "offsets: expected 8 finite numbers"),
        (lambda h: binarize_phases(h, np.ones((8, 4)), np.full(8, np.nan), 4), "offsets: expected 8 finite numbers"),
        (lambda h: binarize_phases(h, np.ones((8, 3)), np.zeros(8), 4), r"projection: expected real numbers"),
        (lambda h: binarize_phases(h, np.ones((8, 4)), [[0], [0, 0]], 4), "offsets: not an array"),
        (lambda h: binarize_phases(h, [[0], [0, 0]], np.zeros(8), 4), "projection: not an array"),
        (lambda h: binarize_phases(h, np.ones((8, 4)), np.zeros(8), 0), "bits_per_phase"),
        (lambda h: binarize_percentile(h, 101), "percentile: expected a number in"),
        (lambda h: binarize_percentile(h, np.nan), "percentile: expected a number in"),
        (lambda h: binarize_percentile(h, True), "percentile: expected a number, got True"),
        (lambda h: binarize_percentile(h[:, :0]), "hashes: expected at least 1 dimension"),
        (lambda h: binarize(h[:, :0], 0.0), "hashes: expected at least 1 dimension"),
    ],
)
def test_bad_hashes_and_thresholds_are_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call(np.ones((2, 4), np.float32))
