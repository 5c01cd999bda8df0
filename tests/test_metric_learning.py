"""The best solar preset: a few steps of training, its way into ONNX, and stops on the way."""

import shutil

import numpy as np
import pytest

import fasthash as fh
from fasthash.codes import binarize_phases
from fasthash.io import read_image
from fasthash.solar import metric_learning
from fasthash.solar.field_map import FieldMap

torch = pytest.importorskip("torch", reason="needs the extra [train]")
pytest.importorskip("onnx", reason="needs the extra [train]")


@pytest.fixture(scope="module")
def data(frames):
    """Three series: the frames, the frames a year later in the mirror, and those turned upside down."""
    images = [read_image(path) for path in frames]
    maps = np.stack([FieldMap().describe(image) for image in images])
    times = np.array([image.time for image in images])
    year = np.timedelta64(365, "D")
    return np.concatenate([maps, maps[:, :, ::-1], maps[:, ::-1]]), np.concatenate([times, times + year, times])


@pytest.fixture(scope="module")
def training(data):
    return metric_learning.train(*data, steps=6, seed=1, num_threads=1)


def test_torch_and_onnx_agree_on_hashes_and_bits(data, training, frames, tmp_path):
    encoder = metric_learning.export(tmp_path / "best.onnx", training, "best", "noise")
    expected = metric_learning.hashes_of(training.network, data[0])
    np.testing.assert_allclose(encoder.encode_inputs(data[0]), expected, atol=1e-4)
    assert (tmp_path / "best.onnx").stat().st_size < 2 * 2**20
    loaded = fh.load_encoder(tmp_path / "best.onnx")
    hashes = loaded.encode(frames[:5])
    np.testing.assert_allclose(hashes, expected[:5], atol=1e-4)
    with torch.no_grad():
        phases = training.network.code(torch.from_numpy(hashes)).numpy()
    first_bits = fh.unpack_bits(loaded.binarize(hashes), loaded.n_bits)[:, :: metric_learning.BITS_PER_PHASE]
    clear = abs(phases - phases.round()) > 1e-5
    np.testing.assert_array_equal(first_bits[clear], (np.floor(phases) % 2)[clear])
    assert loaded.n_bits == 64
    with pytest.raises(fh.ArgumentError, match="percentile: the bits of best are phases"):
        loaded.binarize(hashes, percentile=50)
    about = loaded.metadata
    assert (about["preset"], about["front_end"]) == ("best", {"kind": "field-map", "size": 64})
    assert about["training"]["steps"] == 6
    assert 0 < about["training"]["held_out"]["bits"] <= 1


def test_the_network_learns(data, monkeypatch):
    monkeypatch.setattr(metric_learning, "PACE", 0.0)  # it joins late, and would add to the loss
    losses = []
    metric_learning.train(*data, steps=40, seed=0, progress=lambda *done: losses.append(done[2]), num_threads=1)
    assert len(losses) == 40
    assert losses[-1] < 0.95 * losses[0]


def test_a_training_that_was_stopped_ends_as_if_it_had_not_been(data, training, tmp_path, monkeypatch):
    monkeypatch.setattr(metric_learning, "CHECKPOINT_EVERY", 2)
    checkpoint = tmp_path / "checkpoint"

    def stop(*done):
        if done[0] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        metric_learning.train(*data, steps=6, seed=1, progress=stop, checkpoint=checkpoint, num_threads=1)
    shutil.copy(checkpoint, tmp_path / "kept")
    steps = []
    again = metric_learning.train(
        *data, steps=6, seed=1, progress=lambda *done: steps.append(done[0]), checkpoint=checkpoint, num_threads=1
    )
    assert steps == [5, 6]
    assert again.loss == training.loss
    for name, values in training.network.state_dict().items():
        assert torch.equal(values, again.network.state_dict()[name])
    with pytest.raises(fh.ArgumentError, match="another training"):
        metric_learning.train(*data, steps=6, seed=2, checkpoint=tmp_path / "kept", num_threads=1)
    monkeypatch.setattr(metric_learning, "PACE", 1.0)
    with pytest.raises(fh.ArgumentError, match="another training"):
        metric_learning.train(*data, steps=6, seed=1, checkpoint=tmp_path / "kept", num_threads=1)


def test_a_damaged_checkpoint_is_named(data, tmp_path):
    for content in (b"", b"noise", b"PK\x03\x04 noise"):
        (tmp_path / "checkpoint").write_bytes(content)
        with pytest.raises(fh.FastHashError, match="checkpoint"):
            metric_learning.train(*data, steps=2, checkpoint=tmp_path / "checkpoint", num_threads=1)


def test_distances_of_codes_are_those_of_the_bits_and_slide_with_the_phases():
    rng = np.random.default_rng(0)
    hashes, weight = rng.normal(size=(40, 64)).astype(np.float32), rng.normal(size=(16, 64)).astype(np.float32)
    phases = torch.from_numpy(hashes @ weight.T).requires_grad_()
    shifts = rng.uniform(0, 2, (200, 16)).astype(np.float32)
    distances = [metric_learning._code_distances(torch, phases, torch.from_numpy(shift)) for shift in shifts]
    bits = fh.unpack_bits(binarize_phases(hashes, weight, shifts[0], 4), 64)
    expected = (bits[:, None] != bits).sum(2)
    assert (distances[0].detach().numpy() == expected).mean() > 0.99  # float32 beside float64
    turned = np.abs(phases.detach().numpy()[:, None] - phases.detach().numpy()) % 2
    mean = np.minimum(turned, 2 - turned).sum(2) * 4
    np.testing.assert_allclose(sum(distances).detach().numpy() / len(shifts), mean, atol=1)
    distances[0][0, 1].backward()
    assert (phases.grad[:2].abs() == 4).all()
    assert not phases.grad[2:].any()


def test_the_precision_loss_counts_who_is_among_the_nearest(monkeypatch):
    monkeypatch.setattr(metric_learning, "BLUR", 1e-3)
    rng = np.random.default_rng(0)
    n, k = 30, 6
    distances = rng.permutation(n * n).reshape(n, n).astype(np.float32)
    similar = np.zeros((n, n), np.float32)
    for i in range(n):
        similar[i, rng.permutation(np.delete(np.arange(n), i))[:k]] = 1
    inside = np.where(np.eye(n), np.inf, distances).argsort(1)[:, :k]
    expected = 1 - np.take_along_axis(similar, inside, 1).mean()
    arrays = [torch.from_numpy(array) for array in (distances, similar, np.ones((n, n), np.float32))]
    assert float(metric_learning._precision_loss(torch, *arrays)) == pytest.approx(expected, abs=1e-3)


def test_the_precision_loss_wants_order_and_not_size():
    ranks = torch.arange(20.0).repeat(20, 1)
    distances = ranks.clone().requires_grad_()
    similar = (ranks < 5).float()
    metric_learning._precision_loss(torch, distances, similar, torch.ones_like(ranks)).backward()
    # Frames that are similar are drawn in, those beyond pushed out, and all together nothing: sizes do not count.
    gradient = distances.grad[10]
    assert (gradient[3:5] > 0).all()
    assert (gradient[5:8] < 0).all()
    assert float(gradient.sum()) == pytest.approx(0, abs=1e-4)


def test_the_pace_is_that_of_frames_a_day_apart():
    hours = torch.arange(0.0, 120, 6)
    apart = (hours[:, None] - hours).abs()
    rates = torch.linspace(0.5, 1.5, len(hours))[:, None]  # of each frame, in days' worth
    loss = metric_learning._pace_loss(rates * apart / 24 * metric_learning.BITS_A_DAY, apart)
    assert float(loss) == pytest.approx(float((rates - 1).pow(2).mean()), rel=1e-5)
    assert float(metric_learning._pace_loss(apart, apart / 100)) == 0  # none is a day away


def test_series_end_at_gaps_and_where_time_steps_back():
    hours = np.array([0, 2, 4, 24, 24 + 24, 24 + 49, 24 + 50, 10, 12])
    times = np.datetime64("2014-01-01", "ms") + hours * np.timedelta64(1, "h")
    assert metric_learning.split_series(times) == [slice(0, 5), slice(5, 7), slice(7, 9)]


def test_what_is_held_out_is_never_trained_on():
    times = np.datetime64("2014-01-01", "ms") + np.arange(300) * np.timedelta64(2, "h")
    times += (np.arange(300) // 10) * np.timedelta64(9, "D")
    for stamps, count in ((times, 3), (times[:20], 1), (times[:10], 1)):
        chosen, held_out = metric_learning.hold_out(stamps, seed=5)
        rows = np.concatenate([np.arange(300)[run] for run in (*chosen, *held_out)])
        assert sorted(rows.tolist()) == list(range(len(stamps)))
        assert len(held_out) == count


@pytest.mark.parametrize(
    ("change", "name"),
    [({"steps": 0}, "steps"), ({"seed": -1}, "seed"), ({"maps": np.zeros((9, 32, 32), np.float32)}, "maps"),
     ({"times": np.array(["NaT"] * 108, "datetime64[ms]")}, "times")],
)  # fmt: skip
def test_wrong_arguments_are_named(data, change, name):
    with pytest.raises(fh.ArgumentError, match=name):
        metric_learning.train(**({"maps": data[0], "times": data[1], "steps": 1} | change))
