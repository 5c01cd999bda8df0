"""The best radio preset: codes of the classes, a few epochs of training, its way into ONNX, and stops on the way."""

import io
import shutil

import numpy as np
import pytest

import fasthash as fh
from fasthash.radio import hashing
from fasthash.radio.dataset import CLASSES, describe_set
from fasthash.radio.simulator import simulate_galaxies

torch = pytest.importorskip("torch", reason="needs the extra [train]")
pytest.importorskip("onnx", reason="needs the extra [train]")


@pytest.fixture(scope="module")
def galaxies():
    return simulate_galaxies(80, seed=3)


@pytest.fixture(scope="module")
def data(galaxies):
    fields, kept, problems = describe_set(galaxies, hashing.field_front_end())
    assert problems == []
    return fields, np.array([CLASSES.index(label) for label in kept.labels])


@pytest.fixture(scope="module")
def training(data):
    return hashing.train(*data, epochs=3, seed=1, num_threads=1)


@pytest.mark.parametrize("n_bits", [4, 8, 12, 16, 32, 64, 128])
def test_codes_of_classes_are_as_far_apart_as_can_be(n_bits):
    codes = hashing.class_codes(n_bits)
    assert codes.shape == (4, n_bits)
    assert set(np.unique(codes)) == {-1.0, 1.0}
    assert (codes.sum(axis=0) == 0).all()  # every bit parts the classes two and two
    distances = (codes[:, None] != codes).sum(axis=2)[np.triu_indices(4, 1)]
    assert distances.sum() == 4 * n_bits  # Plotkin: no four words have more
    assert np.ptp(distances) <= 1
    assert np.abs(codes.sum(axis=1)).max() <= 3


@pytest.mark.parametrize("n_bits", [4, 8, 12, 16, 50, 64, 256])
def test_bits_are_the_class_codes_and_tell_how_sure(n_bits):
    weights, offsets = hashing.to_bits(n_bits)
    codes = hashing.class_codes(n_bits)
    assert (np.sign(hashing.class_codes(hashing.LEARNT) @ weights.T + offsets) == codes).all()
    # As numbers go from one class to the next, bits change one after another, half of them on either side of 0.
    first, last = hashing.class_codes(hashing.LEARNT)[:2]
    steps = np.linspace(0, 1, 2001)[:, None]
    bits = ((1 - steps) * first + steps * last) @ weights.T + offsets > 0
    changes = (bits != bits[0]).sum(axis=1)
    apart = (codes[0] != codes[1]).sum()
    assert (changes[0], changes[-1]) == (0, apart)
    assert (np.diff(changes) >= 0).all()
    assert abs(changes[999] - apart / 2) <= 1
    within = np.abs(1 - 2 * steps[:, 0]) <= hashing.LEVEL
    assert (changes[within][0], changes[within][-1]) == (0, apart)


def test_what_training_sees_is_what_the_front_end_gives(galaxies, data):
    """Unturned, the augmentation's geometry is the front end's: same square, same size, same peak."""
    images, _, _ = describe_set(galaxies.take(slice(10)), hashing.front_end())
    n = len(images)
    still = np.zeros(n), np.ones(n), np.ones(n), np.zeros((2, n))
    seen = hashing._turned(torch, torch.from_numpy(data[0][:n]), *still).numpy()
    np.testing.assert_allclose(seen, images, atol=2e-3)


def test_augmented_images_are_images(data):
    seen = hashing.augment(torch, torch.from_numpy(data[0][:32]), np.random.default_rng(0)).numpy()
    assert seen.shape == (32, hashing.SIZE, hashing.SIZE)
    assert np.isfinite(seen).all()
    assert 0 <= seen.min() <= seen.max() < 1.01


def test_torch_and_onnx_agree(galaxies, training, tmp_path):
    encoder = hashing.export(tmp_path / "best.onnx", training, "best", "simulated", 12, {"map": 0.5})
    images, _, _ = describe_set(galaxies, encoder.front_end)
    weights, offsets = hashing.to_bits(12)
    expected = hashing.hashes_of(training.network, images) @ weights.T + offsets
    np.testing.assert_allclose(encoder.encode_inputs(images), expected, atol=1e-4)
    assert (tmp_path / "best.onnx").stat().st_size < 5 * 2**20
    loaded = fh.load_encoder(tmp_path / "best.onnx")
    hashes = loaded.encode(galaxies.images[:4])
    np.testing.assert_array_equal(fh.unpack_bits(loaded.binarize(hashes), 12), hashes > 0)
    about = loaded.metadata
    assert (about["preset"], about["training"]["held_out"]) == ("best", {"map": 0.5})
    assert len(about["training"]["losses"]) == 3
    assert list(about["classes"]) == list(CLASSES)


def test_quarter_turns_change_nothing(galaxies, training):
    images, _, _ = describe_set(galaxies.take(slice(8)), hashing.front_end())
    still, turned = (
        hashing.hashes_of(training.network, np.ascontiguousarray(np.rot90(images, k, (1, 2)))) for k in (0, 1)
    )
    np.testing.assert_allclose(turned, still, atol=1e-4)


def test_the_network_learns(data):
    training = hashing.train(*data, epochs=12, seed=0, num_threads=1)
    assert len(training.losses) == 12
    assert training.losses[-1] < 0.9 * training.losses[0]


def test_at_first_every_class_is_drawn_as_often(data):
    fields, labels = data[0][:50], data[1][:50] % 4
    run = hashing._Run(fields, labels, epochs=10, seed=0, n_reference=30)
    for epoch in (0, 5):
        chances = run.chances(epoch)
        np.testing.assert_allclose([chances[labels == each].sum() for each in range(4)], 0.25)
        assert all(np.ptp(chances[labels == each]) == 0 for each in range(4))


@pytest.mark.parametrize("n_reference", [30, 50])
def test_in_the_end_what_lies_wrong_in_the_reference_is_drawn_most(data, n_reference):
    fields, labels = data[0][:50], data[1][:50] % 4
    run = hashing._Run(fields, labels, epochs=10, seed=0, n_reference=n_reference)
    wrong, chances = run.misread(), run.chances(6)
    assert 0 < wrong.sum() < n_reference  # of a network that has learned nothing
    assert chances.sum() == pytest.approx(1)
    assert chances[:n_reference].sum() == pytest.approx(hashing.SHARE if n_reference < 50 else 1)
    for each in range(4):
        own = chances[:n_reference][labels[:n_reference] == each]
        odd = wrong[labels[:n_reference] == each]
        expected = np.where(odd, hashing.AGAIN, 1) / np.where(odd, hashing.AGAIN, 1).sum()
        np.testing.assert_allclose(own / own.sum(), expected)


def test_what_lies_wrong_is_so_as_the_encoder_sees_it(galaxies, training, data):
    images, _, _ = describe_set(galaxies, hashing.front_end())
    run = hashing._Run(*data, epochs=3, seed=1, n_reference=70)
    run.average.load_state_dict(training.network.state_dict())
    with torch.no_grad():
        products = run.average.one_view(torch.from_numpy(images[:70])).numpy() @ hashing.class_codes(hashing.LEARNT).T
    first, second = np.sort(products, axis=1)[:, :-3:-1].T
    clear = first - second > 0.1  # turning by no angle and the front end differ by a grey level
    assert clear.sum() > 35
    np.testing.assert_array_equal(run.misread()[clear], (products.argmax(axis=1) != data[1][:70])[clear])


@pytest.mark.parametrize("device", ["cpu", "meta", *(["cuda"] if torch.cuda.is_available() else [])])
def test_a_step_stays_on_the_device_of_its_images(data, device):
    """Torch refuses what is partly elsewhere. Meta has no numbers, but it is a device, and every machine has it."""
    fields, labels = (torch.from_numpy(each[:8]).to(device) for each in data)
    net, codes = hashing.network().to(device), torch.from_numpy(hashing.class_codes(hashing.LEARNT)).to(device)
    seen = hashing.augment(torch, fields, np.random.default_rng(0))
    assert (seen.device.type, seen.shape) == (device, (8, hashing.SIZE, hashing.SIZE))
    cost = hashing._loss(torch, net, seen, labels, codes)
    cost.backward()
    assert cost.device.type == device
    assert {values.grad.device.type for values in net.parameters()} == {device}


def test_a_training_that_was_stopped_ends_as_if_it_had_not_been(data, training, tmp_path):
    checkpoint = tmp_path / "checkpoint"

    def stop(*done):
        if done[0] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hashing.train(*data, epochs=3, seed=1, progress=stop, checkpoint=checkpoint, num_threads=1)
    shutil.copy(checkpoint, tmp_path / "kept")
    epochs = []
    again = hashing.train(*data, 3, 1, lambda *done: epochs.append(done[0]), checkpoint=checkpoint, num_threads=1)
    assert epochs == [3]
    assert again.losses == training.losses
    for one, other in zip(training.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(fh.ArgumentError, match="of another training"):
        hashing.train(*data, epochs=3, seed=2, checkpoint=tmp_path / "kept", num_threads=1)
    with pytest.raises(fh.ArgumentError, match="of another training"):  # the same images with other labels
        hashing.train(data[0], data[1][::-1], 3, 1, checkpoint=tmp_path / "kept", num_threads=1)


def test_a_damaged_checkpoint_is_named(data, tmp_path):
    file = io.BytesIO()
    torch.save({"settings": 5}, file)
    for content in (b"", b"no such thing", file.getvalue()):
        (tmp_path / "checkpoint").write_bytes(content)
        with pytest.raises(fh.FastHashError, match="checkpoint"):
            hashing.train(*data, epochs=2, checkpoint=tmp_path / "checkpoint", num_threads=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fields, labels: (fields[:, 1:], labels), "fields: expected float32"),
        (lambda fields, labels: (fields.astype(float), labels), "fields: expected float32"),
        (lambda fields, labels: (fields, labels[1:]), "labels: expected 80 integers"),
        (lambda fields, labels: (fields, labels % 3), "labels: no image of Bent"),
    ],
)
def test_wrong_arguments_are_refused(data, change, message):
    with pytest.raises(fh.ArgumentError, match=message):
        hashing.train(*change(*data), epochs=1)


@pytest.mark.parametrize("n_bits", [-1, 3, 257])
def test_codes_too_short_or_long_are_refused(n_bits, training, tmp_path):
    with pytest.raises(fh.ArgumentError, match="n_bits"):
        hashing.export(tmp_path / "e.onnx", training, "e", "simulated", n_bits)
    assert not (tmp_path / "e.onnx").exists()


@pytest.mark.parametrize(("name", "value"), [("epochs", -1), ("seed", -1), ("n_reference", 0), ("n_reference", 81)])
def test_numbers_out_of_range_are_refused(data, name, value):
    with pytest.raises(fh.ArgumentError, match=name):
        hashing.train(*data, **{"epochs": 1, name: value})
