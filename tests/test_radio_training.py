"""The radio paper's preset: its network, weights, loss and two steps, on a few images and a small network."""

import re
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fasthash as fh
from fasthash.radio import densenet
from fasthash.radio.cutout import Cutout
from fasthash.ranking import evaluate_ranking

torch = pytest.importorskip("torch", reason="needs the extra [train]")
pytest.importorskip("onnx", reason="needs the extra [train]")

SMALL = densenet.Backbone(growth=4, blocks=(1, 2), stem=8)


@pytest.fixture(scope="module", autouse=True)
def little_work():
    """A short search for the rate; one thread, since networks this small wait longer for a second than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(densenet, "RATE_STEPS", 12)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data():
    """Forty images of one spot or of two, 32 x 32, and which."""
    rng = np.random.default_rng(0)
    labels = np.array(["Compact", "FRII"])[np.arange(40) % 2]
    y, x = np.mgrid[:32, :32]
    images = np.zeros((40, 32, 32), np.float32)
    for image, label in zip(images, labels, strict=True):
        apart = 8 if label == "FRII" else 0
        for side in (-apart, apart):
            row, column = 16 + rng.normal(0, 1, 2)
            image += np.exp(-((x - column - side) ** 2 + (y - row) ** 2) / 8)
    return (images / images.max(axis=(1, 2), keepdims=True)).astype(np.float32), labels


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A state dict as torchvision publishes them: old names, and a classifier."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        state = densenet.network(8, SMALL).features.state_dict(prefix="features.")
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): values for name, values in state.items()}
    old = {name: values for name, values in old.items() if not name.endswith("num_batches_tracked")}
    path = tmp_path_factory.mktemp("weights") / "densenet161-small.pth"
    torch.save({**old, "classifier.weight": torch.zeros(1000, SMALL.width)}, path)
    return path, state


@pytest.fixture(scope="module")
def training(data, weights):
    return densenet.train(*data, weights=weights[0], epochs=3, seed=1, num_threads=1, backbone=SMALL)


def test_the_network_is_densenet_161():
    with torch.device("meta"):
        net = densenet.network()
    shapes = {name: tuple(values.shape) for name, values in net.state_dict().items()}
    assert sum(values.numel() for values in net.features.parameters()) == 28_681_000 - (2208 + 1) * 1000
    assert shapes["features.conv0.weight"] == (96, 3, 7, 7)
    assert shapes["features.denseblock3.denselayer36.conv2.weight"] == (48, 192, 3, 3)
    assert shapes["features.transition3.conv.weight"] == (1056, 2112, 1, 1)
    assert shapes["features.norm5.running_var"] == (2208,)
    assert shapes["head.2.weight"] == (512, 4416)
    assert shapes["head.6.weight"] == (8, 512)


def test_forward_is_what_the_paper_says(data):
    net = densenet.network(8, SMALL).eval()
    state = net.state_dict()
    f = torch.nn.functional

    def norm(seen, name):
        return f.batch_norm(seen, *(state[f"{name}.{part}"] for part in
                                    ("running_mean", "running_var", "weight", "bias")))  # fmt: skip

    def conv(seen, name, stride=1):
        weight = state[f"{name}.weight"]
        return f.conv2d(seen, weight, stride=stride, padding=weight.shape[2] // 2)

    images = torch.from_numpy(data[0][:3])
    colours = [(images - m) / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]
    seen = f.relu(norm(conv(torch.stack(colours, 1), "features.conv0", 2), "features.norm0"))
    seen = f.max_pool2d(seen, 3, 2, 1)
    for layer in ("denseblock1.denselayer1", "transition1", "denseblock2.denselayer1", "denseblock2.denselayer2"):
        name = f"features.{layer}"
        if "transition" in layer:
            seen = f.avg_pool2d(conv(f.relu(norm(seen, f"{name}.norm")), f"{name}.conv"), 2)
        else:
            new = conv(f.relu(norm(seen, f"{name}.norm1")), f"{name}.conv1")
            seen = torch.cat([seen, conv(f.relu(norm(new, f"{name}.norm2")), f"{name}.conv2")], 1)
    seen = norm(seen, "features.norm5")
    row = norm(torch.cat([seen.amax((2, 3)), seen.mean((2, 3))], 1), "head.0")
    row = norm(f.relu(f.linear(row, state["head.2.weight"], state["head.2.bias"])), "head.4")
    expected = torch.sigmoid(f.linear(row, state["head.6.weight"], state["head.6.bias"]))
    np.testing.assert_allclose(densenet.hashes_of(net, data[0][:3]), expected.numpy(), atol=1e-6)


def test_weights_of_old_names_are_loaded(weights):
    net = densenet.network(8, SMALL)
    densenet.load_weights(net, weights[0])
    for name, values in net.features.state_dict(prefix="features.").items():
        assert torch.equal(values, weights[1][name])


def test_weights_that_are_none_are_named(tmp_path, weights, monkeypatch):
    net, path = densenet.network(8, SMALL), tmp_path / "w.pth"
    for content in (b"", b"noise"):
        path.write_bytes(content)
        with pytest.raises(fh.ReadError, match=r"w\.pth: not a file of weights"):
            densenet.load_weights(net, path)
    torch.save({"features.conv0.weight": 3}, path)
    with pytest.raises(fh.ReadError, match=r"features.conv0.weight: expected \(8, 3, 7, 7\), got shape \(\)"):
        densenet.load_weights(net, path)
    torch.save({"features.conv0.weight": torch.zeros(3)}, path)
    with pytest.raises(fh.ReadError, match=r"features.conv0.weight: expected \(8, 3, 7, 7\), got shape \(3,\)"):
        densenet.load_weights(net, path)
    torch.save({n: v for n, v in weights[1].items() if "block2.denselayer2" not in n}, path)
    with pytest.raises(fh.ReadError, match=r"features.denseblock2.denselayer2.norm1.weight: expected .*, got nothing"):
        densenet.load_weights(net, path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(fh.ReadError, match=r"put torchvision's densenet161-8d451a50\.pth into .*checkpoints"):
        densenet.find_weights()
    with pytest.raises(fh.ReadError, match=r"nowhere\.pth: no such file"):
        densenet.find_weights("nowhere.pth")
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(weights[0], tmp_path / "checkpoints")
    assert densenet.find_weights().name == weights[0].name


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 9), classes=st.integers(1, 3), seed=st.integers(0, 999))
def test_the_loss_is_the_mean_over_triplets(n, classes, seed):
    rng = np.random.default_rng(seed)
    hashes, labels = rng.random((n, 5)), rng.integers(0, classes, n)
    unit = hashes / np.linalg.norm(hashes, axis=1, keepdims=True)
    lacks = [
        max(0.0, unit[a] @ unit[m] - unit[a] @ unit[p] + 0.2)
        for a in range(n)
        for p in range(n)
        for m in range(n)
        if a != p and labels[a] == labels[p] != labels[m]
    ]
    learnt = [lack for lack in lacks if lack < 0.3]
    expected = np.mean(learnt) if learnt else 0
    found = densenet.triplet_loss(torch.from_numpy(hashes), torch.from_numpy(labels))
    assert float(found) == pytest.approx(expected, abs=1e-9)


def test_the_loss_is_that_of_pytorch_metric_learning():
    """As the authors have it, on batches of the size they have; to the gradient."""
    package = pytest.importorskip("pytorch_metric_learning", reason="needs the extra [test]")
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.reducers import ThresholdReducer

    few = ThresholdReducer(high=densenet.CEILING)
    peer = TripletMarginLoss(densenet.MARGIN, distance=CosineSimilarity(), reducer=few)
    labels = torch.arange(densenet.BATCH) % 4
    start = torch.rand(densenet.BATCH, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = []
    for loss in (peer, densenet.triplet_loss):
        hashes = start.clone().requires_grad_()
        value = loss(hashes, labels)
        value.backward()
        found.append((value.detach(), hashes.grad))
    assert found[0][0] > 0.05, package.__version__
    for ours, theirs in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_the_network_learns(data, weights, monkeypatch):
    monkeypatch.setattr(densenet, "BATCH", 10)
    monkeypatch.setattr(densenet, "MAX_RATE", 1e-2)
    training = densenet.train(*data, weights=weights[0], epochs=10, num_threads=1, backbone=SMALL)
    assert len(training.losses) == 11
    assert training.losses[-1] < 0.9 * training.losses[0]
    assert 0 < training.rate <= densenet.MAX_RATE
    codes = fh.binarize_percentile(densenet.hashes_of(training.network, data[0]))
    assert evaluate_ranking(codes, data[1], codes, data[1], 8).map > 0.8


def test_the_first_step_moves_nothing_but_the_head_and_the_norms(data, weights):
    net = densenet.network(8, SMALL)
    densenet.load_weights(net, weights[0])
    before = {name: values.clone() for name, values in net.state_dict().items()}
    run = densenet._Run(net, data[0], np.arange(40) % 2, seed=0)
    run.learn_epoch(0, 3)
    moved = {name for name, values in net.state_dict().items() if not torch.equal(values, before[name])}
    assert {"head.2.weight", "head.6.bias", "features.norm5.weight", "features.norm0.running_mean"} <= moved
    assert not any("conv" in name for name in moved)
    run.learn_epoch(1, 3)
    assert not torch.equal(net.state_dict()["features.conv0.weight"], before["features.conv0.weight"])


def test_the_rate_finder_leaves_the_network_as_it_was(data):
    net = densenet.network(8, SMALL)
    run = densenet._Run(net, data[0], np.arange(40) % 2, seed=0)
    before = {name: values.clone() for name, values in net.state_dict().items()}
    rate = densenet.find_rate(run)
    assert densenet.MAX_RATE / 10 <= rate <= 0.1
    for name, values in net.state_dict().items():
        assert torch.equal(values, before[name])


def test_a_training_that_was_stopped_ends_as_if_it_had_not_been(data, weights, training, tmp_path):
    checkpoint, options = tmp_path / "checkpoint", {"weights": weights[0], "num_threads": 1, "backbone": SMALL}
    for last in (1, 3):  # at the end of the first step, and within the second

        def stop(*done, last=last):
            if done[0] == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            densenet.train(*data, epochs=3, seed=1, progress=stop, checkpoint=checkpoint, **options)
    shutil.copy(checkpoint, tmp_path / "kept")
    epochs = []
    again = densenet.train(
        *data, epochs=3, seed=1, progress=lambda *done: epochs.append(done[0]), checkpoint=checkpoint, **options
    )
    assert epochs == [4]
    assert (again.losses, again.rate) == (training.losses, training.rate)
    for name, values in training.network.state_dict().items():
        assert torch.equal(values, again.network.state_dict()[name])
    with pytest.raises(fh.ArgumentError, match="another training"):
        densenet.train(*data, epochs=3, seed=2, checkpoint=tmp_path / "kept", **options)
    with pytest.raises(fh.ArgumentError, match="another training"):  # from other weights
        densenet.train(*data, epochs=3, seed=1, checkpoint=tmp_path / "kept", **{**options, "weights": None})
    (tmp_path / "kept").write_bytes(b"noise")
    with pytest.raises(fh.CorruptFileError, match="kept: damaged"):
        densenet.train(*data, epochs=3, seed=1, checkpoint=tmp_path / "kept", **options)


def test_torch_and_onnx_agree(data, training, tmp_path):
    encoder = densenet.export(tmp_path / "p.onnx", training, Cutout(32, None), "p", "spots", held_out={"map": 1.0})
    expected = densenet.hashes_of(training.network, data[0])
    np.testing.assert_allclose(encoder.encode_inputs(data[0]), expected, atol=1e-5)
    loaded = fh.load_encoder(tmp_path / "p.onnx")
    assert (loaded.dim, loaded.n_bits, loaded.percentile) == (8, 8, 50.0)
    np.testing.assert_array_equal(loaded.binarize(expected), fh.binarize_percentile(expected, 50))
    np.testing.assert_array_equal(loaded.binarize(expected, 80), fh.binarize_percentile(expected, 80))
    about = loaded.metadata
    assert (about["preset"], about["front_end"]["size"], about["front_end"]["crop"]) == ("paper", 32, None)
    assert (about["training"]["epochs"], about["training"]["held_out"]) == (4, {"map": 1.0})
    assert loaded.encode(data[0]).shape == (40, 8)


def test_the_cycle_rises_and_falls():
    rates, momenta = np.array([densenet.one_cycle(position) for position in np.linspace(0, 0.999, 500)]).T
    peak = rates.argmax()
    assert (np.diff(rates[: peak + 1]) > 0).all()
    assert (np.diff(rates[peak:]) < 0).all()
    np.testing.assert_allclose([rates[0], rates.max(), peak / 500], [0.04, 1, 0.25], atol=0.01)
    assert rates[-1] < 1e-4
    np.testing.assert_allclose([momenta[0], momenta[peak], momenta[-1]], [0.95, 0.85, 0.95], atol=0.001)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"images": np.zeros((40, 32, 31), np.float32)}, "images"), ({"images": np.zeros((40, 32, 32))}, "images"),
     ({"labels": np.array(["FRI"] * 40)}, "labels: expected two classes"), ({"labels": np.arange(40)}, "labels"),
     ({"n_bits": 0}, "n_bits"), ({"epochs": 0}, "epochs"), ({"seed": -1}, "seed")],
)  # fmt: skip
def test_wrong_arguments_are_named(data, change, named):
    with pytest.raises(fh.ArgumentError, match=named):
        densenet.train(**({"images": data[0], "labels": data[1], "epochs": 1, "backbone": SMALL} | change))
