"""Training of the radio paper's encoder: DenseNet-161 from ImageNet, eight sigmoid neurons, triplets, in two steps.

The recipe is that of Ndung'u et al., "Deep supervised hashing for fast retrieval of radio image cubes", 2023, and where
the paper is silent, of its authors' code: the backbone of torchvision without its classifier; maximum and mean over
what it sees, 4416 numbers; batch norm, dropout, 512 units, ReLU, batch norm, dropout, sigmoid. The head is trained
first, then all of it. Weights are not downloaded: see `find_weights`.
"""

import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._training import (
    data_digest,
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
from fasthash.errors import ArgumentError, ReadError
from fasthash.radio.cutout import Cutout

SIZE = 224  # pixels a side
N_BITS = 8
EPOCHS = 200
FROZEN_EPOCHS = 1
BATCH = 64
PERCENTILE = 50.0
HIDDEN = 512
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation of each colour
WEIGHTS = "densenet161-8d451a50.pth"

MAX_RATE = 1e-3
BACKBONE_RATE = 0.1  # of the head's: features of ImageNet are to be adapted, not lost
WEIGHT_DECAY = 1e-3
RATE_STEPS = 100  # batches that the search for a rate takes

# The loss: what a triplet may lack, and what it may lack at most to be learnt from (beyond, a label may be wrong).
MARGIN, CEILING = 0.2, 0.3


@dataclass(frozen=True)
class Backbone:
    """A DenseNet by its numbers (Huang et al. 2017, arXiv 1608.06993): the default is DenseNet-161."""

    growth: int = 48
    blocks: tuple[int, ...] = (6, 12, 36, 24)
    stem: int = 96

    @property
    def width(self) -> int:
        """Channels that come out."""
        width = self.stem
        for i, layers in enumerate(self.blocks):
            width = (width + layers * self.growth) // (2 if i < len(self.blocks) - 1 else 1)
        return width


DENSENET161 = Backbone()


@dataclass(frozen=True)
class Training:
    """What training gave: the torch network, the loss of each epoch, the rate, seed, and how many images it saw."""

    network: Any
    losses: list[float]
    rate: float
    seed: int
    images: int


# ---- the network ---------------------------------------------------------------------------------------------------


def network(n_bits: int = N_BITS, backbone: Backbone = DENSENET161) -> Any:
    """The untrained torch network: images (n, size, size) in [0, 1] to hashes (n, n_bits) in (0, 1).

    Its ``features`` have the names that torchvision gives them.
    """
    torch = import_torch()
    nn = torch.nn
    width = 2 * backbone.width

    class Network(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.features = _features(nn, backbone)
            self.head = nn.Sequential(
                nn.BatchNorm1d(width),
                nn.Dropout(0.5),
                nn.Linear(width, HIDDEN),
                nn.ReLU(),
                nn.BatchNorm1d(HIDDEN),
                nn.Dropout(0.2),
                nn.Linear(HIDDEN, n_bits),
                nn.Sigmoid(),
            )
            for name, values in zip(("mean", "deviation"), IMAGENET, strict=True):
                self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1), persistent=False)

        def pooled(self, images: Any) -> Any:
            seen = self.features((images[:, None] - self.mean) / self.deviation)
            return torch.cat([seen.amax((2, 3)), seen.mean((2, 3))], 1)

        def forward(self, images: Any) -> Any:
            return self.head(self.pooled(images))

    return Network()


def _features(nn: Any, backbone: Backbone) -> Any:
    torch, growth = import_torch(), backbone.growth

    class DenseLayer(nn.Sequential):  # type: ignore[name-defined, misc]
        """Adds ``growth`` channels to those that come in."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm1, self.relu1 = nn.BatchNorm2d(width), nn.ReLU()
            self.conv1 = nn.Conv2d(width, 4 * growth, 1, bias=False)
            self.norm2, self.relu2 = nn.BatchNorm2d(4 * growth), nn.ReLU()
            self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

        def forward(self, seen: Any) -> Any:
            return torch.cat([seen, super().forward(seen)], 1)

    def named(**layers: Any) -> Any:
        made = nn.Sequential()
        for name, layer in layers.items():
            made.add_module(name, layer)
        return made

    width = backbone.stem
    features = named(
        conv0=nn.Conv2d(3, width, 7, 2, padding=3, bias=False),
        norm0=nn.BatchNorm2d(width),
        relu0=nn.ReLU(),
        pool0=nn.MaxPool2d(3, 2, padding=1),
    )
    for i, layers in enumerate(backbone.blocks, start=1):
        block = {f"denselayer{j + 1}": DenseLayer(width + j * growth) for j in range(layers)}
        features.add_module(f"denseblock{i}", named(**block))
        width += layers * growth
        if i < len(backbone.blocks):
            halved = nn.Conv2d(width, width // 2, 1, bias=False)
            rest = named(norm=nn.BatchNorm2d(width), relu=nn.ReLU(), conv=halved, pool=nn.AvgPool2d(2, 2))
            features.add_module(f"transition{i}", rest)
            width //= 2
    features.add_module("norm5", nn.BatchNorm2d(width))
    return features


# ---- weights from ImageNet -----------------------------------------------------------------------------------------


def find_weights(path: str | os.PathLike[str] | None = None) -> Path:
    """The file of torchvision's DenseNet-161: the one given, or what torchvision has left in its cache.

    Raises ReadError that says where to put it.
    """
    if path is not None:
        if not Path(path).is_file():
            raise ReadError(f"{os.fspath(path)}: no such file of weights")
        return Path(path)
    cache = Path(import_torch().hub.get_dir()) / "checkpoints"
    found = sorted(cache.glob("densenet161-*.pth"))
    if not found:
        raise ReadError(f"no weights: put torchvision's {WEIGHTS} into {cache}, or name its file (--weights FILE)")
    return found[0]


def load_weights(net: Any, path: str | os.PathLike[str]) -> None:
    """Fill a network's features from a state dict of torchvision's, old or new names; its classifier is passed over.

    Raises ReadError, naming the file, where it is none, or one of another network.
    """
    torch = import_torch()
    try:
        given = torch.load(path, map_location="cpu", weights_only=True)
        own = {name: torch.as_tensor(values) for name, values in given.items() if name.startswith("features.")}
        renamed = {_new_name(name): values for name, values in own.items()}
    except Exception as error:  # torch raises anything
        reason = " ".join(str(error).split())[:200]
        raise ReadError(f"{os.fspath(path)}: not a file of weights (a state dict): {reason}") from error
    wanted = net.features.state_dict(prefix="features.")
    for name, values in wanted.items():
        if name not in renamed and name.endswith("num_batches_tracked"):  # older files have none, and none is needed
            renamed[name] = values
        if name not in renamed or renamed[name].shape != values.shape:
            got = f"shape {tuple(renamed[name].shape)}" if name in renamed else "nothing"
            raise ReadError(f"{os.fspath(path)}: not a DenseNet-161: {name}: expected {tuple(values.shape)}, got {got}")
    net.load_state_dict({name: renamed[name] for name in wanted}, strict=False)


def _new_name(name: str) -> str:
    """``denselayer1.norm.1.weight``, as the published file still has it, is now ``denselayer1.norm1.weight``."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d)\.", r"\1\2.", name)


# ---- the loss ------------------------------------------------------------------------------------------------------


def triplet_loss(hashes: Any, labels: Any) -> Any:
    """Mean, over all triplets of a batch, of what they lack: max(0, cos(a, n) - cos(a, p) + MARGIN).

    A triplet is an image a, another one p of its class and one n of another. Those that lack CEILING or more are left
    out. In the library pytorch-metric-learning this is TripletMarginLoss with CosineSimilarity and ThresholdReducer,
    as the authors have it; they also add the length of the hashes (LpRegularizer), which is left out here: cosines do
    not see it, and it pushes all units to zero (docs/radio.md says what that costs).

    hashes: float tensor (n, n_bits); labels: integer tensor (n,). A batch without any triplet costs nothing.
    """
    torch = import_torch()
    unit = torch.nn.functional.normalize(hashes)
    cosine = unit @ unit.T
    same = labels[:, None] == labels
    other = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    lack = (cosine[:, None, :] - cosine[:, :, None] + MARGIN).clamp_min(0)  # [a, p, n]
    learnt = other[:, :, None] & ~same[:, None, :] & (lack < CEILING)
    return (lack * learnt).sum() / learnt.sum().clamp_min(1)


# ---- training ------------------------------------------------------------------------------------------------------


def train(
    images: NDArray[np.float32],
    labels: NDArray[np.str_],
    n_bits: int = N_BITS,
    weights: str | os.PathLike[str] | None = None,
    epochs: int = EPOCHS,
    seed: int = 0,
    progress: Callable[[int, int, float], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    num_threads: int = -1,
    *,
    backbone: Backbone = DENSENET161,
) -> Training:
    """Train the network: the head for one epoch with the features frozen, then everything for ``epochs``.

    On a GPU where there is one, there with half-length numbers for the features. The rate of the second step is what
    `find_rate` suggests, at most 1e-3; features learn at a tenth of it.

    Parameters
    ----------
    images : float32 array (n, size, size) in [0, 1]
        What ``Cutout(224, crop=None)`` makes of the images; classes as balanced as they are to be.
    labels : (n,) str
    n_bits, epochs, seed : int
        The same seed, data, threads and machine give the same network (on a CPU).
    weights : path, optional
        Of `load_weights`; without, features start at random.
    progress : callable(epoch, epochs, loss), optional
    checkpoint : path, optional
        Written after every epoch. Where it exists, training goes on from it, to the very same result.
    num_threads : int
        -1: one for each core.

    Raises
    ------
    ArgumentError
        For arguments of a wrong shape or value, or a checkpoint of another training.
    ReadError
        For weights that are none.
    CorruptFileError
        Where the checkpoint is damaged.
    """
    torch = import_torch()
    class_of = _checked(images, labels)
    check_int("n_bits", n_bits, 1, 4096)
    check_int("epochs", epochs, 1)
    check_int("seed", seed, 0)
    settings: dict[str, Any] = {"seed": seed, "epochs": epochs, "n_bits": n_bits, "data": data_digest(images, labels)}
    with reproducible(torch, seed, check_threads(num_threads)):
        net = network(n_bits, backbone)
        if weights is not None:
            load_weights(net, weights)
        settings["start"] = data_digest(*(each.numpy() for each in net.state_dict().values()))
        run = _Run(net, images, class_of, seed)
        parts = {"network": net, "optimiser": run.optimiser, "scaler": run.scaler}
        losses = resume(checkpoint, settings, parts)
        for epoch in range(len(losses), FROZEN_EPOCHS + epochs):
            if epoch == FROZEN_EPOCHS:
                run.rate = min(find_rate(run), MAX_RATE)
            losses.append(run.learn_epoch(epoch, FROZEN_EPOCHS + epochs))
            if checkpoint:
                save_checkpoint(checkpoint, settings, {**states(parts), "losses": losses})
            if progress is not None:
                progress(epoch + 1, FROZEN_EPOCHS + epochs, losses[-1])
    return Training(net.cpu().eval(), losses, run.rate, seed, len(images))


def _checked(images: NDArray[np.float32], labels: NDArray[np.str_]) -> NDArray[np.int64]:
    """The number of each image's class, once images and labels make sense."""
    if images.ndim != 3 or images.dtype != np.float32 or images.shape[1] != images.shape[2] or images.shape[1] < 32:
        wanted = "float32 (n, size, size), size at least 32"
        raise ArgumentError(f"images: expected {wanted}, got {images.dtype} {images.shape}")
    if labels.shape != (len(images),) or labels.dtype.kind != "U":
        raise ArgumentError(f"labels: expected {len(images)} strings, got {labels.dtype} {labels.shape}")
    names, class_of, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if len(names) < 2 or sizes.max() < 2:
        raise ArgumentError(f"labels: expected two classes, and two images of one of them, got {len(images)} images")
    return class_of


class _Run:
    """A training under way: the network, its optimiser, and the images, on a GPU where there is one."""

    def __init__(self, net: Any, images: NDArray[np.float32], class_of: NDArray[np.int64], seed: int) -> None:
        torch = import_torch()
        self.device = training_device()
        self.mixed = self.device.type == "cuda"
        self.net = net.to(self.device, memory_format=torch.channels_last)
        self.images, self.class_of, self.seed = torch.from_numpy(images), torch.from_numpy(class_of), seed
        groups = [{"params": part.parameters(), "highest": MAX_RATE} for part in (net.features, net.head)]
        self.optimiser = torch.optim.AdamW(groups, MAX_RATE, (0.95, 0.99), eps=1e-5, weight_decay=WEIGHT_DECAY)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.mixed)

    @property
    def rate(self) -> float:
        """The highest rate of the head; the optimiser keeps it, so that a checkpoint does."""
        return float(self.optimiser.param_groups[1]["highest"])

    @rate.setter
    def rate(self, value: float) -> None:
        self.optimiser.param_groups[1]["highest"] = value

    def freeze(self, frozen: bool) -> None:
        """Whether the features are to stay as they are; their norms learn all the same."""
        norm = import_torch().nn.BatchNorm2d
        for layer in self.net.features.modules():
            for values in layer.parameters(recurse=False):
                values.requires_grad_(not frozen or isinstance(layer, norm))

    def batches(self, epoch: int) -> list[Any]:
        """Rows of whole batches in random order; fewer images than one make one."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.images))
        count = max(1, len(order) // BATCH)
        return [import_torch().from_numpy(rows) for rows in np.array_split(order[: count * BATCH], count)]

    def learn_epoch(self, epoch: int, epochs: int) -> float:
        """One pass over the images, at its place in the cycle of its step; returns the mean loss."""
        import_torch().manual_seed(self.seed * 1_000_003 + epoch)  # dropout's, so that no state has to be kept
        first, end = (0, FROZEN_EPOCHS) if epoch < FROZEN_EPOCHS else (FROZEN_EPOCHS, epochs)
        self.freeze(epoch < FROZEN_EPOCHS)
        if epoch == first:
            self.optimiser.state.clear()
        batches, losses = self.batches(epoch), []
        for i, rows in enumerate(batches):
            share, momentum = one_cycle((epoch - first + i / len(batches)) / (end - first))
            losses.append(self.learn(rows, share * self.rate, momentum))
        return float(np.mean(losses))

    def learn(self, rows: Any, rate: float, momentum: float) -> float:
        """One batch; returns its loss."""
        torch = import_torch()
        for group, share in zip(self.optimiser.param_groups, (BACKBONE_RATE, 1.0), strict=True):
            group["lr"], group["betas"] = share * rate, (momentum, 0.99)
        self.net.train()
        with torch.autocast(self.device.type, torch.float16, enabled=self.mixed):
            seen = self.net.pooled(self.images[rows].to(self.device))
        cost = triplet_loss(self.net.head(seen.float()), self.class_of[rows].to(self.device))
        self.optimiser.zero_grad()
        self.scaler.scale(cost).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return float(cost.detach())


def one_cycle(position: float) -> tuple[float, float]:
    """Share of the highest rate, and momentum, at a position in [0, 1) of a training (Smith 2018, arXiv 1803.09820).

    The rate rises from a 25th over the first quarter and falls to nothing; momentum does the opposite.
    """
    if position < 0.25:
        warm = 0.5 - 0.5 * math.cos(math.pi * position / 0.25)
        return 1 / 25 + (1 - 1 / 25) * warm, 0.95 - 0.1 * warm
    cooled = 0.5 - 0.5 * math.cos(math.pi * (position - 0.25) / 0.75)
    return 1 - cooled * (1 - 1e-6), 0.85 + 0.1 * cooled


def find_rate(run: _Run) -> float:
    """A tenth of the highest rate at which the loss is still near its lowest, while the rate grows from 1e-7 to 1.

    At least a tenth of MAX_RATE. After Smith 2015 (arXiv 1506.01186), who looks where the loss falls fastest: that of
    triplets is so noisy and flat that this, or its very lowest, comes by chance and far too early. Everything learns
    meanwhile, and is as before in the end.
    """
    torch = import_torch()
    kept = {name: values.clone() for name, values in run.net.state_dict().items()}
    torch.manual_seed(run.seed)
    run.freeze(False)
    rates, losses, mean, drawn = np.geomspace(1e-7, 1, RATE_STEPS), [], 0.0, _endless(run)
    for i, rate in enumerate(rates, start=1):
        mean = 0.9 * mean + 0.1 * run.learn(next(drawn), rate, 0.9)
        losses.append(mean / (1 - 0.9**i))
        if not losses[-1] < 4 * min(losses):  # NaN too
            break
    run.net.load_state_dict(kept)
    near = np.flatnonzero(np.array(losses) <= 1.05 * np.nanmin(losses)) if np.isfinite(losses[0]) else [0]
    return max(float(rates[near[-1]]) / 10, MAX_RATE / 10)


def _endless(run: _Run) -> Iterator[Any]:
    epoch = 10**6  # orders that no epoch has
    while True:
        yield from run.batches(epoch)
        epoch += 1


def hashes_of(net: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The torch network on images (n, size, size): float32 (n, n_bits). The oracle of the exported network."""
    torch = import_torch()
    with torch.no_grad():
        blocks = [net(torch.from_numpy(images[i : i + 32])) for i in range(0, len(images), 32)]
    return np.asarray(torch.cat(blocks).numpy())


# ---- export --------------------------------------------------------------------------------------------------------


def export(
    path: str | os.PathLike[str], training: Training, front_end: Cutout, name: str, data: str, **about: Any
) -> Encoder:
    """Write the network as ONNX: images (n, size, size) in [0, 1] to hashes (n, n_bits); one threshold per image.

    ``about`` joins what the metadata say about the training. Returns the encoder as loaded back from what was written.
    """
    metadata = {
        "name": name,
        "preset": "paper",
        "front_end": front_end.settings(),
        "scaling": "grey to three colours, less ImageNet's mean, by its deviation, inside the network",
        "percentile": PERCENTILE,
        "training": {
            "data": data,
            "images": training.images,
            "epochs": len(training.losses),
            "seed": training.seed,
            "learning_rate": training.rate,
            "final_loss": training.losses[-1],
            "losses": training.losses,
            **about,
        },
    }
    return write_encoder(path, to_onnx(training.network, "images", (front_end.size, front_end.size)), metadata)
