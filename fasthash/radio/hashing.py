"""Training of the best radio encoders: deep supervised hashing towards one code for each class.

A small convolutional network learns 64 numbers, of which the bits are made. Each class has a code of its own, all of
them equally far apart (Yuan et al., "Central similarity quantization", CVPR 2020, arXiv 1908.00347), and a galaxy's
numbers are drawn to the code of its class: a softmax over the cosines between numbers and codes, with a margin (Hoe et
al., "One loss for all: deep hashing with a single cosine similarity based learning objective", NeurIPS 2021, arXiv
2109.14449). Ndung'u et al.'s triplets need 8 neurons to spread classes by themselves;
codes given beforehand need no search for hard triplets. In the end the images of the reference that still lie under
the code of another class are drawn most often, so that it ends up pure.

The radio sky has no up: views are turned by any angle while training, and the encoder averages four of them, a quarter
turn apart. Images kept out say which epoch's weights are the best. Codes of all lengths come out of one training: see
`to_bits`. docs/radio.md says what each part gives.
"""

import copy
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._training import (
    data_digest,
    half_length,
    import_torch,
    reproducible,
    resume,
    save_checkpoint,
    states,
    to_onnx,
    training_device,
    write_encoder,
)
from fasthash._validation import check_int, check_threads
from fasthash.encoder import Encoder
from fasthash.errors import ArgumentError
from fasthash.radio.cutout import Cutout
from fasthash.radio.dataset import CLASSES
from fasthash.radio.early_stopping import EVERY, EarlyStopping, HeldOut, Judgement

N_BITS, EPOCHS = 64, 400
LEARNT = 64  # numbers that the network learns, drawn to +1 and -1
LEVEL = 0.15  # of bits: how far from 0 their levels may lie
SIZE = 64  # pixels a side of what the network sees
CROP = 90  # pixels of FIRST that it covers
FIELD = 128  # pixels of FIRST a side that training takes, so that a square may be turned in it
CHANNELS = (24, 40, 56, 80, 112, 144)
STRIDES = (2, 2, 1, 2, 1, 2)
HIDDEN = 128

BATCH = 64
LEARNING_RATE, WEIGHT_DECAY, DROPOUT = 2e-3, 5e-2, 0.3
SCALE, MARGIN, SMOOTHING = 8.0, 0.2, 0.05  # of the softmax over cosines
UNIT = 0.02  # share in the loss of how far a number is from +-1
AVERAGE = 0.998  # what a step leaves of the average network

# Reference images that lie wrong cost every query: in the end, training is about the reference, most of all about them.
FINISH = 0.6  # of the epochs: where that begins
SHARE = 0.8  # of the reference among the images drawn
AGAIN = 4  # times as often an image of it that lies wrong is drawn as one that lies right


@dataclass(frozen=True)
class Training:
    """What training gave.

    network : torch module
    losses : the mean loss of each epoch
    judgements : those of early stopping, none without held-out images
    kept : the epoch after which the network had these weights
    seed : int
    images : how many were learnt from
    """

    network: Any
    losses: list[float]
    judgements: list[Judgement]
    kept: int
    seed: int
    images: int

    @property
    def epochs(self) -> int:
        return len(self.losses)


PARTED = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], np.float32)  # four classes, two and two


def _ways(n_bits: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Which column of PARTED each bit tells, and its sign: every other round of three is negated, so that codes have
    about as many ones as zeros."""
    i = np.arange(n_bits)
    return i % 3, np.where(i // 3 % 2, np.float32(-1), np.float32(1))


def class_codes(n_bits: int) -> NDArray[np.float32]:
    """The code of each class, +1 and -1, float32 (4, n_bits).

    Four classes fall into two and two in three ways, and each bit tells one of them: so any two classes differ in two
    thirds of the bits, as many as can be.
    """
    way, sign = _ways(n_bits)
    return np.ascontiguousarray(PARTED[:, way] * sign)  # in the same order, or sums come out otherwise


def to_bits(n_bits: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The weights (n_bits, 64) and offsets (n_bits,) that make the bits of a code, by their signs, of what is learnt.

    The numbers are some twenty noisy answers to each of three questions. Their mean is a better answer than any, and
    the bits that ask the same question cut it at levels of their own, evenly spread between -0.15 and 0.15: so a code
    tells doubtful galaxies from clear ones, and eight bits are nearly as good as many.
    """
    (way, sign), (learnt_way, learnt_sign) = _ways(n_bits), _ways(LEARNT)
    alike = way[:, np.newaxis] == learnt_way
    weights = sign[:, np.newaxis] * learnt_sign * alike / alike.sum(axis=1, keepdims=True)
    rank, alike_bits = np.arange(n_bits) // 3, (way[:, np.newaxis] == way).sum(axis=1)
    levels = LEVEL * (2 * (rank + 1) / (alike_bits + 1) - 1)
    return weights.astype(np.float32), (-sign * levels).astype(np.float32)


def network() -> Any:
    """The untrained torch network: images (n, 64, 64) in [0, 1], as the front end gives them, to LEARNT numbers."""
    torch = import_torch()
    nn = torch.nn

    class Network(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            steps: list[Any] = []
            for before, after, stride in zip((2, *CHANNELS), CHANNELS, STRIDES, strict=False):
                width = 5 if before == 2 else 3
                convolution = nn.Conv2d(before, after, width, stride, padding=width // 2, bias=False)
                # Batch normalisation fails on images that are nearly all zero.
                steps += [convolution, nn.GroupNorm(8, after), nn.ReLU()]
            self.features = nn.Sequential(*steps)
            pooled = 2 * CHANNELS[-1]
            self.hash = nn.Sequential(
                nn.Dropout(DROPOUT), nn.Linear(pooled, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, LEARNT)
            )

        def forward(self, images: Any) -> Any:
            if self.training:
                return self.one_view(images)
            # One batch of all views would be no faster on a CPU, and four times as large.
            return torch.stack([self.one_view(each) for each in _quarter_turns(images)]).mean(0)

        def one_view(self, images: Any) -> Any:
            # Flux as it is for peaks, its root for jets and haze.
            planes = torch.stack([(images + 1e-6).sqrt(), images], 1) * 2 - 0.2
            features = self.features(planes.contiguous(memory_format=torch.channels_last))
            return self.hash(torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1))

    return Network().to(memory_format=torch.channels_last)


def with_bits(net: Any, n_bits: int) -> Any:
    """A copy of the network whose outputs (n, n_bits) are the bits by their signs."""
    torch = import_torch()
    weights, offsets = (torch.from_numpy(each) for each in to_bits(n_bits))
    short = copy.deepcopy(net).eval()
    learnt, bits = short.hash[-1], torch.nn.Linear(HIDDEN, n_bits)
    with torch.no_grad():
        bits.weight.copy_(weights @ learnt.weight)
        bits.bias.copy_(weights @ learnt.bias + offsets)
    short.hash[-1] = bits
    return short


def _quarter_turns(images: Any) -> list[Any]:
    across = images.transpose(1, 2)
    return [images, images.flip((1, 2)), across.flip(1), across.flip(2)]


def front_end() -> Cutout:
    """What an encoder sees of an image."""
    return Cutout(SIZE, CROP, "linear")


def field_front_end() -> Cutout:
    """What training takes of an image: more sky, at FIRST's own pixels."""
    return Cutout(FIELD, FIELD, "linear")


# ---- what a step sees ----------------------------------------------------------------------------------------------


def augment(torch: Any, fields: Any, rng: np.random.Generator) -> Any:
    """Fields (n, 128, 128) as images (n, 64, 64) that the network might be shown, each one on its own.

    Turned by any angle, mirrored, up to a fifth larger or smaller, off the centre by a pixel or so; faint parts lost in
    half of them; brightness raised to a power near 1.
    """
    n = len(fields)
    angle, size = rng.uniform(0, 2 * math.pi, n), np.exp(rng.normal(0, 0.08, n))
    mirror, shift = rng.choice([-1.0, 1.0], n), rng.normal(0, 0.012, (2, n))
    images = _turned(torch, fields, angle, size, mirror, shift)
    faintest = np.where(rng.random(n) < 0.5, rng.uniform(0, 0.04, n), 0)
    images = images * (images >= _column(faintest, images))
    return (images + 1e-6) ** _column(np.exp(rng.normal(0, 0.15, n)), images)


def _column(values: NDArray[np.float64], images: Any) -> Any:
    """A number for each of the images, where they are."""
    return images.new_tensor(values)[:, None, None]


def _turned(torch: Any, fields: Any, angle: Any, size: Any, mirror: Any, shift: Any) -> Any:
    """The central squares of fields after turning, scaling, mirroring, shifting; of peak 1, as the front end has it."""
    functional = torch.nn.functional
    share = CROP / FIELD
    cosine, sine = np.cos(angle) * size * share, np.sin(angle) * size * share
    affine = np.stack(
        [np.stack([cosine * mirror, -sine, shift[0]], 1), np.stack([sine * mirror, cosine, shift[1]], 1)], 1
    )
    where = functional.affine_grid(fields.new_tensor(affine), (len(fields), 1, CROP, CROP), align_corners=False)
    square = functional.grid_sample(fields[:, None], where, align_corners=False)
    small = functional.interpolate(square, (SIZE, SIZE), mode="bilinear", antialias=True)[:, 0].clamp_min(0)
    return small / small.amax((1, 2), keepdim=True).clamp_min(1e-3)


def _chances(labels: NDArray[np.int64], weights: NDArray[np.float64] | float = 1.0) -> NDArray[np.float64]:
    """Of images to be drawn: each class as often as any other, but for the weights."""
    chances = weights / np.bincount(labels, minlength=len(CLASSES))[labels]
    return np.asarray(chances / chances.sum())


# ---- training ------------------------------------------------------------------------------------------------------


def train(
    fields: NDArray[np.float32],
    labels: NDArray[np.int64],
    epochs: int = EPOCHS,
    seed: int = 0,
    progress: Callable[[int, int, float, Judgement | None], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    num_threads: int = -1,
    *,
    n_reference: int | None = None,
    held_out: HeldOut | None = None,
    patience: int | None = None,
) -> Training:
    """Train a network on labelled galaxies, on a GPU where there is one.

    Parameters
    ----------
    fields : float32 array (n, 128, 128)
        What `field_front_end` makes of the images.
    labels : int64 array (n,)
        Positions in CLASSES; every class is there.
    epochs, seed : int
        The same seed, data, threads and machine give the same network (on a CPU).
    progress : callable(epoch, epochs, loss, judgement), optional
        The judgement is the last one, None before the first.
    checkpoint : path, optional
        Written after every epoch. Where it exists, training goes on from it, to the very same result.
    n_reference : int, optional
        So many of the fields, the first, are the archive to be searched: in the last two fifths of the epochs mostly
        they are drawn, and most often those that are still taken for another class. Default: all.
    held_out : HeldOut, optional
        What `front_end` makes of images that are not among the fields, and of those among which they are searched.
        Every tenth epoch and the last are judged by them, and the best weights kept. Default: the last are.
    patience : int, optional
        Training ends after so many epochs without a better judgement. Default: `default_patience`.

    Raises
    ------
    ArgumentError
        For arguments of a wrong shape or value, or a checkpoint of another training.
    CorruptFileError
        Where the checkpoint is damaged.
    """
    torch = import_torch()
    _check(fields, labels)
    check_int("epochs", epochs, 1)
    check_int("seed", seed, 0)
    n_reference = len(fields) if n_reference is None else check_int("n_reference", n_reference, 1, len(fields))
    settings = {"seed": seed, "epochs": epochs, "data": data_digest(fields, labels), "n_reference": n_reference}
    with reproducible(torch, seed, check_threads(num_threads)):
        run = _Run(fields, labels, epochs, seed, n_reference)
        parts = {"network": run.net, "average": run.average, "optimiser": run.optimiser}
        stopping = _early_stopping(run, held_out, patience)
        if stopping:
            parts["stopping"] = stopping
            settings |= {"held_out": stopping.held_out.digest(), "patience": stopping.patience}
        losses = resume(checkpoint, settings, parts)
        while len(losses) < epochs and not (stopping and stopping.over):
            losses.append(run.learn_epoch(len(losses)))
            if stopping and (len(losses) % EVERY == 0 or len(losses) == epochs):
                stopping.judge(len(losses))
            if checkpoint:
                save_checkpoint(checkpoint, settings, {**states(parts), "losses": losses})
            if progress is not None:
                progress(len(losses), epochs, losses[-1], stopping.last if stopping else None)
    if stopping:
        return Training(stopping.best.cpu(), losses, stopping.judgements, stopping.kept, seed, len(fields))
    return Training(run.average.cpu(), losses, [], len(losses), seed, len(fields))


def default_patience(epochs: int) -> int:
    """Half of the epochs, at least two judgements: after one lucky judgement half-way, most is still to be gained."""
    return max(epochs // 2, 2 * EVERY)


def _check(fields: NDArray[Any], labels: NDArray[Any]) -> None:
    if fields.dtype != np.float32 or fields.ndim != 3 or fields.shape[1:] != (FIELD, FIELD):
        raise ArgumentError(f"fields: expected float32 (n, {FIELD}, {FIELD}), got {fields.dtype} {fields.shape}")
    if labels.shape != (len(fields),) or labels.dtype.kind != "i":
        raise ArgumentError(f"labels: expected {len(fields)} integers, got {labels.dtype} {labels.shape}")
    missing = [name for i, name in enumerate(CLASSES) if not np.any(labels == i)]
    if missing:
        raise ArgumentError(f"labels: no image of {', '.join(missing)}")


def _early_stopping(run: "_Run", held_out: HeldOut | None, patience: int | None) -> EarlyStopping | None:
    if held_out is None:
        if patience is not None:
            raise ArgumentError("patience: nothing to stop by without held_out")
        return None
    held_out.check((SIZE, SIZE))
    patience = default_patience(run.epochs) if patience is None else patience
    return EarlyStopping(run.average, hashes_of, class_codes(LEARNT), held_out, patience)


class _Run:
    """A training under way: the network, the average of its last weights, the optimiser, and what is learnt."""

    def __init__(
        self, fields: NDArray[np.float32], labels: NDArray[np.int64], epochs: int, seed: int, n_reference: int
    ) -> None:
        torch = import_torch()
        self.fields, self.labels, self.epochs, self.seed = fields, labels, epochs, seed
        self.n_reference = n_reference
        self.device = training_device()
        self.codes = torch.from_numpy(class_codes(LEARNT)).to(self.device)
        self.net = network().to(self.device)
        self.average = copy.deepcopy(self.net).eval()
        self.optimiser = torch.optim.AdamW(_groups(self.net), lr=LEARNING_RATE)

    def chances(self, epoch: int) -> NDArray[np.float64]:
        """How likely each image is drawn in an epoch."""
        if epoch < FINISH * self.epochs:
            return _chances(self.labels)
        reference, rest = self.labels[: self.n_reference], self.labels[self.n_reference :]
        chances = _chances(reference, np.where(self.misread(), AGAIN, 1.0))
        return np.concatenate([SHARE * chances, (1 - SHARE) * _chances(rest)]) if len(rest) else chances

    def misread(self) -> NDArray[np.bool_]:
        """Which images of the reference the average network takes for another class, by one view, as they are."""
        torch, wrong = import_torch(), []
        for start in range(0, self.n_reference, BATCH):
            rows = slice(start, min(start + BATCH, self.n_reference))
            fields = torch.from_numpy(self.fields[rows]).to(self.device)
            n = len(fields)
            with torch.no_grad():
                seen = _turned(torch, fields, np.zeros(n), np.ones(n), np.ones(n), np.zeros((2, n)))
                nearest = (self.average.one_view(seen) @ self.codes.T).argmax(1)
            wrong.append(nearest.cpu().numpy() != self.labels[rows])
        return np.concatenate(wrong)

    def learn_epoch(self, epoch: int) -> float:
        """As many images as there are, in random batches; returns the mean loss."""
        torch = import_torch()
        rng = np.random.default_rng([self.seed, 2, epoch])
        torch.manual_seed(int(rng.integers(1 << 62)))  # of dropout
        per_epoch = -(-len(self.fields) // BATCH)
        costs: list[float] = []
        for rows in rng.choice(len(self.labels), (per_epoch, BATCH), p=self.chances(epoch)):
            step = epoch * per_epoch + len(costs)
            rate = LEARNING_RATE * _rate(step, self.epochs * per_epoch)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            fields, labels = (torch.from_numpy(each[rows]).to(self.device) for each in (self.fields, self.labels))
            cost = _loss(torch, self.net, augment(torch, fields, rng), labels, self.codes)
            self.optimiser.zero_grad()
            cost.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 2.0)
            self.optimiser.step()
            _follow(torch, self.average, self.net, min(AVERAGE, (step + 1) / (step + 10)))
            costs.append(float(cost.detach()))
        return float(np.mean(costs))


def _groups(net: Any) -> list[dict[str, Any]]:
    """Weights decay, what scales and shifts does not."""
    weights = [each for each in net.parameters() if each.ndim > 1]
    rest = [each for each in net.parameters() if each.ndim <= 1]
    return [{"params": weights, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}]


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: a tenth of the steps to warm up, and a cosine down to nothing."""
    return min(1.0, (step + 1) / (0.1 * steps + 1)) * (0.5 + 0.5 * math.cos(math.pi * step / steps))


def _loss(torch: Any, net: Any, seen: Any, labels: Any, codes: Any) -> Any:
    functional = torch.nn.functional
    with half_length(seen.device.type):
        hashes = net(seen)
    hashes = hashes.float()
    cosines = functional.normalize(hashes, dim=1) @ functional.normalize(codes, dim=1).T
    wanted = functional.one_hot(labels, len(codes)).float()
    classes = functional.cross_entropy(SCALE * (cosines - MARGIN * wanted), labels, label_smoothing=SMOOTHING)
    return classes + UNIT * (hashes.abs() - 1).pow(2).mean()


def _follow(torch: Any, average: Any, net: Any, keep: float) -> None:
    with torch.no_grad():
        for mean, now in zip(average.parameters(), net.parameters(), strict=True):
            mean.lerp_(now, 1 - keep)


def hashes_of(net: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a torch network gives of images (n, 64, 64): float32 (n, any). The oracle of the exported network."""
    torch = import_torch()
    device = next(net.parameters()).device
    with torch.no_grad():
        blocks = [net(torch.from_numpy(images[i : i + 256]).to(device)) for i in range(0, len(images), 256)]
    hashes: NDArray[np.float32] = torch.cat(blocks).cpu().numpy()
    return hashes


# ---- export --------------------------------------------------------------------------------------------------------


def export(
    path: str | os.PathLike[str],
    training: Training,
    name: str,
    data: str,
    n_bits: int = N_BITS,
    held_out: Mapping[str, float] | None = None,
) -> Encoder:
    """Write the network as ONNX: images (n, 64, 64) to hashes (n, n_bits), whose signs are the bits (see `to_bits`).

    ``held_out``: what was measured on images that the training never saw, for the metadata. Returns the encoder as
    loaded back from what was written. Raises ArgumentError for n_bits that are not 4 to 256.
    """
    check_int("n_bits", n_bits, 4, 256)
    metadata = {
        "name": name,
        "preset": "best",
        "front_end": front_end().settings(),
        "scaling": "flux and its square root, inside the network, which averages four quarter turns",
        "thresholds": [0.0] * n_bits,
        "classes": {label: code.astype(int).tolist() for label, code in zip(CLASSES, class_codes(n_bits), strict=True)},
        "training": {
            "data": data,
            "images": training.images,
            "epochs": training.epochs,
            "kept_epoch": training.kept,
            "seed": training.seed,
            "losses": _rounded(training.losses),
            "judgements": {
                "epoch": [each.epoch for each in training.judgements],
                "map": _rounded([each.map for each in training.judgements]),
                "accuracy": _rounded([each.accuracy for each in training.judgements]),
            },
            "held_out": dict(held_out) if held_out else None,
        },
    }
    return write_encoder(path, to_onnx(with_bits(training.network, n_bits), "images", (SIZE, SIZE)), metadata)


def _rounded(values: list[float]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]
