"""Early stopping of the best radio preset: what is judged, what is kept, when it ends, and stops on the way."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import fasthash as fh
from fasthash.codes import pack_bits
from fasthash.radio import early_stopping, hashing
from fasthash.radio.dataset import CLASSES, describe_set
from fasthash.radio.early_stopping import EarlyStopping, HeldOut
from fasthash.radio.simulator import simulate_galaxies
from fasthash.ranking import evaluate_ranking

torch = pytest.importorskip("torch", reason="needs the extra [train]")
pytest.importorskip("onnx", reason="needs the extra [train]")

SEED = 1


def inputs(galaxies, front_end):
    images, kept, problems = describe_set(galaxies, front_end)
    assert problems == []
    return images, np.array([CLASSES.index(label) for label in kept.labels])


@pytest.fixture(scope="module")
def galaxies():
    return simulate_galaxies(24, seed=3), simulate_galaxies(12, seed=4)


@pytest.fixture(scope="module")
def data(galaxies):
    return inputs(galaxies[0], hashing.field_front_end())


@pytest.fixture(scope="module")
def held_out(galaxies):
    return HeldOut(*inputs(galaxies[1], hashing.front_end()), *inputs(galaxies[0], hashing.front_end()))


@pytest.fixture(scope="module", autouse=True)
def little_work():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "BATCH", 8)
        yield


@pytest.fixture
def script(monkeypatch):
    """A judgement after every epoch, as it is dictated."""
    monkeypatch.setattr(hashing, "EVERY", 1)

    def dictate(*maps):
        scripted = iter(maps)
        monkeypatch.setattr(early_stopping, "evaluate_ranking", lambda *_, **__: SimpleNamespace(map=next(scripted)))

    return dictate


def train(data, epochs, **options):
    return hashing.train(*data, epochs=epochs, seed=SEED, num_threads=1, **options)


def assert_same(one, other):
    for name, values in one.network.state_dict().items():
        assert torch.equal(values, other.network.state_dict()[name]), name


def test_judging_changes_nothing(data, held_out, script):
    """Each judgement better than the one before: the weights are those of a training without any."""
    script(0.1, 0.2, 0.3)
    judged, plain = train(data, 3, held_out=held_out), train(data, 3)
    assert judged.losses == plain.losses
    assert_same(judged, plain)
    assert [each.epoch for each in judged.judgements] == [1, 2, 3]
    assert (judged.kept, plain.kept, plain.judgements) == (3, 3, [])


def test_the_last_judgement_is_what_evaluation_finds(data, held_out, tmp_path):
    training = train(data, 2, held_out=held_out)
    assert [each.epoch for each in training.judgements] == [2]  # too short for a tenth epoch
    asked, known = (hashing.hashes_of(training.network, images) for images in (held_out.query, held_out.reference))
    labels = held_out.query_labels, held_out.reference_labels
    names = [np.array(CLASSES)[each] for each in labels]
    report = evaluate_ranking(pack_bits(asked > 0), names[0], pack_bits(known > 0), names[1], hashing.LEARNT)
    assert training.judgements[0].map == pytest.approx(report.map, abs=1e-6)
    unit = known / np.linalg.norm(known, axis=1, keepdims=True)
    nearest = (unit @ hashing.class_codes(hashing.LEARNT).T).argmax(axis=1)
    assert training.judgements[0].accuracy == pytest.approx(np.mean(nearest == labels[1]))
    about = hashing.export(tmp_path / "e.onnx", training, "e", "simulated").metadata["training"]
    assert (about["kept_epoch"], about["judgements"]["epoch"]) == (2, [2])
    assert about["judgements"]["map"] == [pytest.approx(training.judgements[0].map, abs=1e-4)]


def test_the_best_weights_are_kept_and_training_ends_in_time(data, held_out, script):
    script(0.5, 0.7, 0.6, 0.7, 0.1, 0.2, 0.9)
    training = train(data, 7, held_out=held_out, patience=2)
    assert [each.map for each in training.judgements] == [0.5, 0.7, 0.6, 0.7, 0.1, 0.2]
    assert (training.epochs, training.kept) == (6, 4)  # of equals the last


def test_progress_tells_the_last_judgement(data, held_out, script):
    script(0.2, 0.1)
    told = []
    train(data, 2, held_out=held_out, progress=lambda *done: told.append((*done[:2], done[3].map)))
    assert told == [(1, 2, 0.2), (2, 2, 0.1)]
    train(data, 1, progress=lambda *done: told.append(done[3]))
    assert told[-1] is None


def stop_at(last, *done):
    if done[0] == last:
        raise KeyboardInterrupt


@pytest.mark.parametrize("last", [1, 3, 4])  # before the best, after it, and when it is over
def test_a_training_that_was_stopped_ends_as_if_it_had_not_been(last, data, held_out, script, tmp_path):
    maps, checkpoint = (0.5, 0.7, 0.6, 0.5, 0.9), tmp_path / "checkpoint"
    options = {"held_out": held_out, "patience": 2}
    script(*maps)
    whole = train(data, 6, **options)
    assert (whole.epochs, whole.kept) == (4, 2)
    script(*maps)
    with pytest.raises(KeyboardInterrupt):
        train(data, 6, **options, checkpoint=checkpoint, progress=lambda *done: stop_at(last, *done))
    shutil.copy(checkpoint, tmp_path / "kept")
    script(*maps[last:])
    again = train(data, 6, **options, checkpoint=checkpoint)
    assert (again.losses, again.judgements, again.kept) == (whole.losses, whole.judgements, 2)
    assert_same(again, whole)
    others = replace(held_out, query_labels=held_out.query_labels[::-1])
    for changed in ({"held_out": held_out, "patience": 3}, {"held_out": others, "patience": 2}, {}):
        with pytest.raises(fh.ArgumentError, match="of another training"):
            train(data, 6, **changed, checkpoint=tmp_path / "kept")


def test_judging_draws_no_random_number_and_keeps_the_network(held_out):
    net = hashing.network().eval()
    stopping = EarlyStopping(net, hashing.hashes_of, hashing.class_codes(hashing.LEARNT), held_out, patience=1)
    before, weights = torch.get_rng_state(), {name: values.clone() for name, values in net.state_dict().items()}
    for epoch in (1, 2):
        stopping.judge(epoch)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(values, weights[name]) for name, values in net.state_dict().items())
    first, second = stopping.judgements
    assert replace(first, epoch=2) == second
    assert (stopping.kept, stopping.over) == (2, False)


def test_the_default_patience():
    assert [hashing.default_patience(epochs) for epochs in (1, 100, 250, 400)] == [20, 50, 125, 200]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: {"query": h.query[:, 1:]}, r"held_out.query: expected float32 \(n, 64, 64\)"),
        (lambda h: {"reference": h.reference.astype(float)}, r"held_out.reference: .* got float64 \(24, 64, 64\)"),
        (lambda h: {"query": h.query[:0], "query_labels": h.query_labels[:0]}, "held_out.query: .* n at least 1"),
        (lambda h: {"query_labels": h.query_labels[1:]}, "held_out.query_labels: expected 12 integers"),
        (lambda h: {"reference_labels": h.reference_labels + 1}, r"held_out.reference_labels: .*\[0, 3\]"),
        (lambda h: {"query_labels": h.query_labels * 0, "reference_labels": h.reference_labels * 0 + 1},
         "no query has an image of its class"),
    ],
)  # fmt: skip
def test_wrong_images_are_refused(change, message, data, held_out):
    with pytest.raises(fh.ArgumentError, match=message):
        train(data, 1, held_out=replace(held_out, **change(held_out)))


def test_a_wrong_patience_is_refused(data, held_out):
    for patience in (0, -1, 2.5):
        with pytest.raises(fh.ArgumentError, match="patience"):
            train(data, 1, held_out=held_out, patience=patience)
    with pytest.raises(fh.ArgumentError, match="patience: nothing to stop by"):
        train(data, 1, patience=3)
