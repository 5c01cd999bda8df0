"""PCA, random projections and ITQ against what defines them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fasthash as fh
from fasthash.baselines import itq, pca, random_projection

shapes = st.tuples(st.integers(3, 30), st.integers(2, 30))


def vectors(n, d, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, d)) * np.geomspace(1, 9, d) + 5).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(shapes, st.integers(0, 9))
def test_pca_is_the_singular_value_decomposition(shape, seed):
    x = vectors(*shape, seed)
    k = min(shape[0] - 1, shape[1])
    fitted = pca(x, k)
    _, values, right = np.linalg.svd(x.astype(np.float64) - x.mean(axis=0, dtype=np.float64), full_matrices=False)
    # Axes up to their sign, so their outer products; values as they are.
    np.testing.assert_allclose(np.abs(np.sum(fitted.projection * right[:k], axis=1)), 1, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(fitted.transform(x), axis=0), values[:k], rtol=1e-3, atol=1e-3)
    assert (np.take_along_axis(fitted.projection, np.abs(fitted.projection).argmax(axis=1)[:, None], 1) > 0).all()


def test_a_direction_in_which_nothing_varies_is_zero():
    x = np.repeat(vectors(4, 12), 3, axis=0)
    projection = pca(x, 6).projection
    np.testing.assert_allclose(np.linalg.norm(projection, axis=1), [1, 1, 1, 0, 0, 0], atol=1e-9)
    assert not pca(np.ones((5, 3), np.float32), 2).projection.any()


def test_random_hyperplanes_count_angles():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((40, 20)).astype(np.float32)
    x -= x.mean(axis=0)
    bits = fh.unpack_bits(random_projection(x, 4000, seed=3).binarize(x), 4000)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    angles = np.arccos(np.clip(unit @ unit.T, -1, 1)) / np.pi
    share = (bits[:, None] != bits).mean(axis=2)
    np.testing.assert_allclose(share, angles, atol=5 * 0.5 / np.sqrt(4000))


def test_itq_turns_principal_components_towards_their_signs():
    x = vectors(200, 16)
    errors = []
    for iterations in (0, 1, 5, 50):
        fitted = itq(x, 6, iterations, seed=2)
        values = fitted.transform(x)
        errors.append(((values - np.where(values > 0, 1, -1)) ** 2).sum())
        np.testing.assert_allclose(fitted.projection @ fitted.projection.T, np.eye(6), atol=1e-9)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]
    np.testing.assert_allclose(  # the same subspace
        np.linalg.norm(values, axis=1), np.linalg.norm(pca(x, 6).transform(x), axis=1), rtol=1e-4
    )


@pytest.mark.parametrize("fit", [pca, random_projection, itq])
def test_codes_are_the_signs_and_the_same_each_time(fit):
    x = vectors(50, 12)
    fitted = fit(x, 9)
    codes = fitted.binarize(x)
    assert codes.shape == (50, 2)
    clear = np.abs(fitted.transform(x)) > 1e-4
    assert ((fh.unpack_bits(codes, 9) == (fitted.transform(x) > 0)) | ~clear).all()
    np.testing.assert_array_equal(codes, fit(x, 9).binarize(x))
    np.testing.assert_array_equal(codes[:7], fitted.binarize(x[:7]))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda x: pca(x, 0), "n_components"),
        (lambda x: pca(x, 7), "n_components"),
        (lambda x: pca(x[:1], 1), "descriptors: expected at least 2 rows"),
        (lambda x: pca(x.astype(np.float64), 1), "descriptors: expected dtype float32"),
        (lambda x: itq(x, 7), "n_components"),
        (lambda x: itq(x, 2, -1), "iterations"),
        (lambda x: itq(x, 2, seed=-1), "seed"),
        (lambda x: random_projection(x, 0), "n_bits"),
        (lambda x: random_projection(x * np.nan, 8), "descriptors: row 0 holds NaN"),
        (lambda x: pca(x, 2).transform(x[:, :5]), "descriptors: expected 6 dimensions, got 5"),
        (lambda x: pca(x, 2).binarize(x[:, :5]), "descriptors: expected 6 dimensions, got 5"),
    ],
)
def test_wrong_arguments_are_named(call, named):
    with pytest.raises(fh.ArgumentError, match=named):
        call(vectors(20, 6))
