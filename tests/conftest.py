"""Fixtures that several test files share."""

import numpy as np
import pytest

from fasthash.solar.simulator import simulate


@pytest.fixture(scope="session")
def frames(tmp_path_factory):
    """Three days of small simulated magnetograms, every two hours: 36 paths in the order of time."""
    return simulate(tmp_path_factory.mktemp("frames"), "2014-05-01", 3, 120, 64, seed=3)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    """The path of an encoder trained for one epoch on noise: quick to make, and good for everything but quality."""
    pytest.importorskip("torch", reason="needs the extra [train]")
    pytest.importorskip("onnx", reason="needs the extra [train]")
    from fasthash.descriptor import GridHistogram
    from fasthash.solar.autoencoder import export, train
    from fasthash.solar.magnetogram import MagnetogramHistogram

    shares = np.random.default_rng(0).random((128, 400), np.float32)
    path = tmp_path_factory.mktemp("encoder") / "tiny.onnx"
    export(path, train(shares, epochs=1, seed=0), MagnetogramHistogram(GridHistogram()), shares, "tiny", "noise")
    return path
