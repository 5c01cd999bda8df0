"""The paper's network to the parameter, and its way into ONNX."""

import numpy as np
import pytest

import fasthash as fh
from fasthash.descriptor import GridHistogram
from fasthash.solar import autoencoder
from fasthash.solar.magnetogram import MagnetogramHistogram

torch = pytest.importorskip("torch", reason="needs the extra [train]")
pytest.importorskip("onnx", reason="needs the extra [train]")


@pytest.fixture(scope="module")
def shares():
    counts = np.random.default_rng(0).poisson(3, (200, 400)) * np.random.default_rng(1).integers(0, 2, 400)
    return (counts / 2621).astype(np.float32)


@pytest.fixture(scope="module")
def training(shares):
    return autoencoder.train(shares, epochs=3, seed=5)


def test_table_1_to_the_parameter():
    encoder, decoder = autoencoder.autoencoder("paper")
    linear = [layer for layer in (*encoder, *decoder) if isinstance(layer, torch.nn.Linear)]
    counts = [sum(p.numel() for p in layer.parameters()) for layer in linear]
    assert counts == [80_200, 20_100, 5_050, 5_100, 20_200, 80_400]
    assert isinstance(decoder[-1], torch.nn.Tanh)
    kinds = [type(layer).__name__ for layer in (*encoder, *decoder) if not isinstance(layer, torch.nn.Linear)]
    assert kinds == ["ReLU"] * 5 + ["Tanh"]


def test_torch_and_onnx_agree(shares, training, tmp_path):
    encoder = autoencoder.export(tmp_path / "e.onnx", training, _front_end(), shares, "e", "noise")
    network, _ = autoencoder.autoencoder("paper")
    layers = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
    with torch.no_grad():
        for layer, weight, bias in zip(layers, training.weights, training.biases, strict=True):
            layer.weight.copy_(torch.from_numpy(weight.T))
            layer.bias.copy_(torch.from_numpy(bias))
        expected = network(torch.from_numpy(autoencoder.scale(shares))).numpy()
    for hashes in (encoder.encode_inputs(shares), autoencoder.hashes_of(training, shares)):
        np.testing.assert_allclose(hashes, expected, atol=1e-5)
    assert expected.max() > 0


def test_the_network_learns(shares):
    losses = autoencoder.train(shares, epochs=8, seed=0).losses
    assert len(losses) == 8
    assert losses[-1] < 0.7 * losses[0]


def test_the_same_seed_gives_the_same_file(shares, training, tmp_path):
    again = autoencoder.train(shares, epochs=3, seed=5)
    other = autoencoder.train(shares, epochs=3, seed=6)
    files = []
    for i, result in enumerate((training, again, other)):
        autoencoder.export(tmp_path / f"{i}.onnx", result, _front_end(), shares, "e", "noise")
        files.append((tmp_path / f"{i}.onnx").read_bytes())
    assert files[0] == files[1] != files[2]


def test_training_leaves_the_callers_random_state_alone(shares):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    autoencoder.train(shares, epochs=1, seed=9)
    assert torch.equal(torch.rand(3), expected)


def test_metadata_tell_how_it_was_made(shares, training, tmp_path):
    encoder = autoencoder.export(tmp_path / "e.onnx", training, _front_end(), shares, "e", "noise")
    about = encoder.metadata
    assert about["front_end"] == _front_end().settings()
    assert about["training"]["epochs"] == 3
    assert about["training"]["seed"] == 5
    assert about["training"]["images"] == 200
    assert about["fasthash_version"] == fh.__version__
    # A bit is set in half of the training frames, but for dead units.
    bits = fh.unpack_bits(encoder.binarize(encoder.encode_inputs(shares)), encoder.n_bits)
    alive = np.median(autoencoder.hashes_of(training, shares), axis=0) > 0
    np.testing.assert_allclose(bits[:, alive].mean(axis=0), 0.5, atol=0.01)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"preset": "best"}, "preset"), ({"epochs": 0}, "epochs"), ({"seed": -1}, "seed"), ({"seed": 0.5}, "seed")],
)
def test_wrong_settings_are_named(shares, arguments, name):
    with pytest.raises(fh.ArgumentError, match=name):
        autoencoder.train(shares, **arguments)


def test_too_few_or_misshapen_descriptors_are_refused(shares):
    for wrong in (shares[:1], shares[:, :10]):
        with pytest.raises(fh.ArgumentError, match="shares"):
            autoencoder.train(wrong, epochs=1)


def _front_end():
    return MagnetogramHistogram(GridHistogram())
