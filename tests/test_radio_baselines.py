"""Descriptors of radio galaxies to compare with: that turning changes nothing, and that the rest does what it says."""

import functools

import numpy as np
import pytest

import fasthash as fh
from fasthash.io import Image
from fasthash.radio import baselines, densenet
from fasthash.radio.cutout import Cutout
from fasthash.radio.dataset import CLASSES, describe_set
from fasthash.radio.simulator import simulate_galaxies

SMALL = densenet.Backbone(growth=4, blocks=(1, 2), stem=8)


@pytest.fixture(scope="module")
def galaxies():
    return simulate_galaxies(24, seed=5)


@pytest.fixture(scope="module")
def respond(galaxies):
    return baselines.prototype_filters(polar(galaxies.images), galaxies.labels, count=3)


def polar(images):
    return np.stack([baselines.polar_responses(Image(image)) for image in images])


def test_turning_by_a_quarter_shifts_polar_responses(galaxies):
    still, turned = polar(galaxies.images[:6]), polar([np.rot90(image) for image in galaxies.images[:6]])
    np.testing.assert_allclose(turned, np.roll(still, 6, axis=2), atol=1e-3)
    assert still.shape[1:] == (9, 24)
    np.testing.assert_allclose(still.max(axis=(1, 2)), 1)


def test_turning_changes_no_response_of_a_filter(galaxies, respond):
    still = respond(polar(galaxies.images))
    np.testing.assert_allclose(respond(polar([np.rot90(image) for image in galaxies.images])), still, atol=2e-3)
    np.testing.assert_allclose(respond(np.roll(polar(galaxies.images), 5, axis=2)), still, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(still, axis=1), 1, rtol=1e-5)
    assert still.shape == (24, 3 * len(CLASSES))


def test_a_response_is_the_best_geometric_mean():
    rng = np.random.default_rng(0)
    rows, labels = rng.random((8, 9, 24)).astype(np.float32), np.repeat(CLASSES, 2)
    found = baselines.prototype_filters(rows, labels, count=1, seed=4)(rows)
    rng = np.random.default_rng(4)
    drawn = [rng.permutation(np.flatnonzero(labels == label))[0] for label in CLASSES]
    for image, answer in zip(rows, found, strict=True):
        logs = np.log(np.maximum(image, 0.01))
        weights = [baselines._filter(rows[i]) for i in drawn]
        expected = [max(np.exp((np.roll(logs, s, axis=1) * w).sum()) for s in range(24)) for w in weights]
        np.testing.assert_allclose(answer, expected / np.linalg.norm(expected), rtol=1e-4)


def test_triplets_are_trained_in_eight_bits(galaxies, monkeypatch):
    pytest.importorskip("torch", reason="needs the extra [train]")
    pytest.importorskip("onnx", reason="needs the extra [train]")
    monkeypatch.setattr(baselines, "TRIPLET_BACKBONE", SMALL)
    monkeypatch.setattr(densenet, "RATE_STEPS", 3)
    images, kept, _ = describe_set(galaxies, Cutout(32, None))
    encoder = baselines.train_triplets(images, kept, epochs=1)
    assert (encoder.n_bits, encoder.percentile) == (8, 50)
    assert encoder.binarize(encoder.encode_inputs(images)).shape == (len(images), 1)


def test_features_from_imagenet(galaxies, monkeypatch, tmp_path):
    torch = pytest.importorskip("torch", reason="needs the extra [train]")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(fh.ReadError, match="no weights: put torchvision's"):
        baselines.imagenet_features()(Image(galaxies.images[0]))
    network = densenet.network(8, SMALL)
    torch.save(network.features.state_dict(prefix="features."), tmp_path / "w.pth")
    monkeypatch.setattr(densenet, "network", functools.partial(densenet.network, backbone=SMALL))
    found = baselines.imagenet_features(tmp_path / "w.pth")(Image(galaxies.images[0]))
    seen = Cutout(224, None).describe(Image(galaxies.images[0]))
    with torch.no_grad():
        expected = network.eval().pooled(torch.from_numpy(seen)[None])[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
