"""Fixtures that several test files share."""

from pathlib import Path

import pytest

from fasthash.encoder import ENCODERS
from fasthash.solar.simulator import simulate


@pytest.fixture(scope="session")
def frames(tmp_path_factory):
    """Three days of small simulated magnetograms, every two hours: 36 paths in the order of time."""
    return simulate(tmp_path_factory.mktemp("frames"), "2014-05-01", 3, 120, 64, seed=3)


@pytest.fixture(scope="session")
def encoder_path():
    """The file of a shipped encoder: what it makes of images does not matter here, only that it is the same always."""
    return ENCODERS / "solar-paper.onnx"


@pytest.fixture(scope="session")
def real_solar():
    """The folder of real solar images, which are no part of the project; without it, tests that use it are skipped."""
    folder = Path(__file__).parents[2] / "shared" / "data" / "solar"
    if not folder.is_dir():
        pytest.skip("the real files are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def real_radio():
    """The folder of real radio galaxies; like the solar ones no part of the project."""
    folder = Path(__file__).parents[2] / "shared" / "data" / "radio"
    if not folder.is_dir():
        pytest.skip("the real files are not beside this checkout")
    return folder
