"""Training of the best solar encoder: metric learning on field maps, with time as the teacher.

A small convolutional network learns 64 numbers of which distances tell how far apart in time two frames of one Sun
are, and a linear map of them to 16 phases of which the bits of a code are made (`fasthash.codes.binarize_phases`).
Similar are, as in Grycuk and Scherer (section 3), frames at most 24 h apart. The floats learn by the cross-entropy
between who is similar and a softmax over negative distances (Goldberger et al. 2004, neighbourhood components
analysis), the bits by a smooth form of the very precision that they are measured by.

What makes or breaks the bits is how evenly they flip. The signs of 64 values are 64 clocks of their own: of the 13 that
flip in a day, more or less 4 come by chance, and that alone mixes up the frames at the edge of the window. The four
bits of a phase flip one after the other as it turns. docs/solar.md says what each part gives.
"""

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
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
    write_encoder,
)
from fasthash._validation import check_int, check_threads
from fasthash.codes import binarize_phases
from fasthash.encoder import Encoder
from fasthash.errors import ArgumentError
from fasthash.evaluation import evaluate_window
from fasthash.solar.field_map import FieldMap

DIM = 64
# Of a code of 64 bits. More bits a phase flip more evenly, more phases tell more.
PHASES, BITS_PER_PHASE = 16, 4
N_BITS = PHASES * BITS_PER_PHASE
CELLS = 64  # a side of a map
CHANNELS = (32, 56, 80, 112, 144)
STRIDES = (2, 2, 1, 2, 2)
LEARNING_RATE = 1e-3
WARM_UP = 100  # steps
CHECKPOINT_EVERY = 100  # steps

# A batch: frames of so many series, each seen in one way (mirrored, scaled, blurred); of a series so many spans of a
# few days with frames from each, and frames from anywhere.
SERIES_PER_BATCH, SPANS_PER_SERIES = 2, 4
NEAR, FAR = 24, 48
SPANS = (96.0, 120.0, 168.0)  # hours
WINDOW, SOFTNESS = 24.5, 2.0  # hours: where similarity ends, and how softly
# A frame far away stands for many of an archive: for the bits, whose wrapped phases may meet again, it counts so often.
FAR_HOURS, FAR_WEIGHT = 96.0, 6.0
GAP = np.timedelta64(1, "D")  # ends a series

# Shares in the loss: that of the bits is a precision, which is a fraction of the floats' cross-entropy.
FLOATS, BITS = 3.0, 10.0
BLUR = 2.0  # bits: how softly the bits' precision tells whether a frame is among the nearest
# Codes of every Sun and season are to move by so many bits a day: with fewer, chance counts for more; with more,
# wrapped phases meet again sooner. Asked for in the last part of the training, when codes have learned to move.
BITS_A_DAY, PACE, PACE_AFTER = 13.0, 30.0, 0.71

_Series = tuple[NDArray[Any], NDArray[np.float64]]  # maps, hours


@dataclass(frozen=True)
class Quality:
    """Precision with k = the number of similar images (48-h window) on series that the training never saw.

    ``floats`` by L2 distance, ``bits`` by Hamming distance; ``..._6h``: with everything within 6 h excluded.
    """

    frames: int
    floats: float
    floats_6h: float
    bits: float
    bits_6h: float
    chance: float


@dataclass(frozen=True)
class Training:
    """What training gave: the torch network, the mean loss of the last steps, the steps, seed and frames."""

    network: Any
    loss: float
    steps: int
    seed: int
    frames: int
    quality: Quality | None


def network() -> Any:
    """The untrained torch network: maps (n, 64, 64) in gauss to hashes (n, 64).

    Its ``code`` is the linear map from hashes to phases (n, 16) in half turns.
    """
    torch = import_torch()
    nn = torch.nn

    def root(values: Any) -> Any:
        return (values.abs() + 1e-3).sqrt() / 5

    class Network(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            steps: list[Any] = []
            for before, after, stride in zip((3, *CHANNELS), CHANNELS, STRIDES, strict=False):
                width = 5 if before == 3 else 3
                steps += [
                    nn.Conv2d(before, after, width, stride, padding=width // 2),
                    nn.GroupNorm(8, after),
                    nn.ReLU(),
                ]
            self.features = nn.Sequential(*steps)
            self.hash = nn.Linear(CHANNELS[-1] * (CELLS // math.prod(STRIDES)) ** 2, DIM)
            self.code = nn.Linear(DIM, PHASES)

        def forward(self, maps: Any) -> Any:
            # Weak field counts by its root, spots by their sign alone.
            field = maps[:, None]
            planes = [field.sign() * root(field), root(field) - 0.4, torch.tanh(field / 200)]
            return self.hash(self.features(torch.cat(planes, 1)).flatten(1))

    return Network().to(memory_format=torch.channels_last)  # a third faster on a CPU


# ---- what a step sees ----------------------------------------------------------------------------------------------


def split_series(times: NDArray[np.datetime64]) -> list[slice]:
    """Runs of frames of one Sun: a series ends where time steps back or leaps by more than a day."""
    steps = np.diff(times)
    ends = np.flatnonzero((steps < np.timedelta64(0)) | (steps > GAP)) + 1
    bounds = [0, *ends.tolist(), len(times)]
    return [slice(a, b) for a, b in pairwise(bounds)]


def hold_out(times: NDArray[np.datetime64], seed: int) -> tuple[list[slice], list[slice]]:
    """Series to train on, and every tenth, at least one, kept for evaluation; of a single one, its last tenth."""
    series = split_series(times)
    if len(series) == 1:
        cut = math.ceil(len(times) * 0.9)
        return [slice(0, cut)], [slice(cut, len(times))]
    order = np.random.default_rng([seed, 1]).permutation(len(series))
    count = max(1, len(series) // 10)
    return [series[i] for i in np.sort(order[count:])], [series[i] for i in np.sort(order[:count])]


def _pick(rng: np.random.Generator, hours: NDArray[np.float64]) -> NDArray[np.int64]:
    """Frames of a series for one batch: some from each of a few spans of days, and some from anywhere."""
    parts = [rng.permutation(len(hours))[:FAR]]
    for _ in range(SPANS_PER_SERIES):
        start = hours[rng.integers(len(hours))]
        inside = np.flatnonzero((hours >= start) & (hours <= start + rng.choice(SPANS)))
        parts.append(rng.permutation(inside)[:NEAR])
    return np.unique(np.concatenate(parts))


def _batch(torch: Any, series: list[_Series], rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Maps (n, 64, 64), their hours (n,), and the number of the series each one comes from (n,)."""
    maps, hours, owner = [], [], []
    for i in rng.permutation(len(series))[:SERIES_PER_BATCH]:
        frames, when = series[i]
        rows = _pick(rng, when)
        maps.append(augment(torch, torch.from_numpy(frames[rows].astype(np.float32)), rng))
        hours.append(when[rows])
        owner.append(np.full(len(rows), i))
    return torch.cat(maps), torch.from_numpy(np.concatenate(hours)), torch.from_numpy(np.concatenate(owner))


def augment(torch: Any, maps: Any, rng: np.random.Generator) -> Any:
    """Maps (n, 64, 64) as another Sun and another instrument might show them.

    Alike for all: mirrored in space and polarity, field scaled, compressed by a power, blurred, noise. Each by its
    own, in half of the calls: turned, scaled and shifted by about half a cell; in a fifth: a square of 8 cells missing.
    """
    functional = torch.nn.functional
    n = len(maps)
    flips = [axis for axis in (1, 2) if rng.random() < 0.5]
    maps = maps.flip(flips) * (-1 if rng.random() < 0.5 else 1)
    maps = maps.sign() * (maps.abs() / 50) ** rng.uniform(0.7, 1.15) * 50 * math.exp(rng.normal(0, 0.5))
    if rng.random() < 0.3:
        maps = functional.avg_pool2d(maps[:, None], 3, 1, 1)[:, 0]
    maps = maps + torch.from_numpy(rng.standard_normal(maps.shape, np.float32)) * rng.uniform(0, 4)
    if rng.random() < 0.5:
        angle, size = rng.normal(0, 0.012, n), 1 + rng.normal(0, 0.005, n)
        shift = rng.normal(0, 0.005, (2, n))
        sine, cosine = size * np.sin(angle), size * np.cos(angle)
        affine = np.stack([np.stack([cosine, -sine, shift[0]], 1), np.stack([sine, cosine, shift[1]], 1)], 1)
        where = functional.affine_grid(torch.from_numpy(affine).float(), (n, 1, *maps.shape[1:]), align_corners=False)
        maps = functional.grid_sample(maps[:, None], where, align_corners=False)[:, 0]
    if rng.random() < 0.2:
        for i in np.flatnonzero(rng.random(n) < 0.2):
            row, column = rng.integers(0, CELLS - 8, 2)
            maps[i, row : row + 8, column : column + 8] = 0
    return maps


# ---- what a step wants ---------------------------------------------------------------------------------------------


def _neighbour_loss(torch: Any, distances: Any, similar: Any, counts: Any) -> Any:
    """Cross-entropy between the similar frames of each and a softmax over negative distances.

    ``counts`` (n, n): as how many frames each one counts for another; 0 leaves it out, and itself is always.
    """
    counts = counts.masked_fill(torch.eye(len(distances), dtype=torch.bool), 0)
    wanted = similar.masked_fill(counts == 0, 0)
    wanted = wanted / wanted.sum(1, keepdim=True).clamp_min(1e-6)
    chances = torch.log_softmax((counts.log() - distances).clamp_min(-1e9), 1)
    return -(wanted * chances).sum(1).mean()


def _precision_loss(torch: Any, distances: Any, similar: Any, counts: Any) -> Any:
    """One minus the precision among as many of the nearest as are similar, smoothed over `BLUR` of distance.

    ``similar``, ``counts``: as in `_neighbour_loss`. The distance up to which a frame is among the nearest follows the
    distances, so that making all of them larger or smaller changes nothing but how much the blur is.
    """
    counts = counts.masked_fill(torch.eye(len(distances), dtype=torch.bool), 0)
    wanted = (similar * counts).sum(1, keepdim=True).clamp_min(0.5)
    with torch.no_grad():
        edge = _edge(torch, distances, counts, wanted)
        inside = torch.sigmoid((edge - distances) / BLUR)
        pull = inside * (1 - inside) * counts
        pull = pull / pull.sum(1, keepdim=True).clamp_min(1e-6)
    follow = (pull * distances).sum(1, keepdim=True)
    inside = torch.sigmoid((edge + follow - follow.detach() - distances) / BLUR)
    return 1 - ((similar * counts * inside).sum(1, keepdim=True) / wanted).mean()


def _edge(torch: Any, distances: Any, counts: Any, wanted: Any) -> Any:
    """The distance (n, 1) within which, softly, ``wanted`` frames are; by bisection."""
    low = torch.full_like(wanted, -4 * BLUR)
    high = torch.full_like(wanted, float(distances.max()) + 4 * BLUR)
    for _ in range(14):
        middle = (low + high) / 2
        enough = (torch.sigmoid((middle - distances) / BLUR) * counts).sum(1, keepdim=True) > wanted
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return (low + high) / 2


def _code_distances(torch: Any, phases: Any, shift: Any) -> Any:
    """Hamming distances (n, n) of the codes of phases (n, p) in half turns, all turned on by ``shift`` (p,).

    Their gradient is that of the mean over all shifts, bits a half turn times the turns between two phases.
    """
    apart = (phases[:, None] - phases).remainder(2)
    mean = torch.minimum(apart, 2 - apart).sum(2) * BITS_PER_PHASE
    places = torch.arange(BITS_PER_PHASE) / BITS_PER_PHASE
    odd = ((phases.detach() + shift)[:, :, None] + places).floor().remainder(2).flatten(1)
    signs = 2 * odd - 1
    distances = (signs.shape[1] - signs @ signs.T) / 2
    return mean + (distances - mean).detach()


def _pace_loss(distances: Any, apart: Any) -> Any:
    """Mean square of how much, as a share, each frame's distance to those a day away is not `BITS_A_DAY`.

    ``apart`` (n, n): hours. Frames with none a day away do not count.
    """
    day = ((apart > 20) & (apart < 28)).float()
    some = day.sum(1) > 0
    moved = (distances * day).sum(1)[some] / day.sum(1)[some]
    return (moved / BITS_A_DAY - 1).pow(2).sum() / max(1, len(moved))


def _loss(torch: Any, hashes: Any, phases: Any, scale: Any, hours: Any, owner: Any, shift: Any, pace: float) -> Any:
    """What a batch costs; ``shift`` as in `_code_distances`, ``pace`` the share of `_pace_loss`."""
    apart = (hours[:, None] - hours).abs()
    together = (owner[:, None] == owner).float()
    similar = torch.sigmoid((WINDOW - apart) / SOFTNESS).float() * together
    squared = torch.cdist(hashes, hashes).pow(2) / DIM
    floats = _neighbour_loss(torch, squared * scale.exp() * 4, similar, torch.ones_like(together))
    bits = []
    for i in owner.unique():  # an archive is of one Sun
        of = owner == i
        counts = 1 + (FAR_WEIGHT - 1) * (apart[of][:, of] > FAR_HOURS).float()
        distances = _code_distances(torch, phases[of], shift)
        missed = _precision_loss(torch, distances, similar[of][:, of], counts)
        bits.append(BITS * missed + pace * _pace_loss(distances, apart[of][:, of]))
    return FLOATS * floats + torch.stack(bits).mean()


# ---- training ------------------------------------------------------------------------------------------------------


def steps_for(frames: int, epochs: int) -> int:
    """Steps in which as many frames are seen as in ``epochs`` passes over ``frames``."""
    return max(1, round(frames * epochs / (SERIES_PER_BATCH * (SPANS_PER_SERIES * NEAR + FAR))))


def train(
    maps: NDArray[Any],
    times: NDArray[np.datetime64],
    steps: int,
    seed: int = 0,
    progress: Callable[[int, int, float], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    num_threads: int = -1,
) -> Training:
    """Train the network on series of field maps; a tenth of the series is kept out and evaluated at the end.

    Parameters
    ----------
    maps : float16 or float32 array (n, 64, 64)
        What FieldMap makes of the frames, gauss.
    times : datetime64 array (n,)
        Of the frames, UTC, ascending within a series; a series ends where they step back or leap by more than a day.
    steps, seed : int
        Steps of up to 288 frames. The same seed, data, steps, threads and machine give the same network.
    progress : callable(step, steps, loss), optional
    checkpoint : path, optional
        Written every 100 steps. Where it exists, training goes on from it, to the very same result.
    num_threads : int
        -1: one for each core.

    Raises
    ------
    ArgumentError
        For arguments of a wrong shape or value, or a checkpoint of another training.
    CorruptFileError
        Where the checkpoint is damaged.
    """
    torch = import_torch()
    check_int("steps", steps, 1)
    check_int("seed", seed, 0)
    times = _checked(maps, times)
    chosen, held_out = hold_out(times, seed)
    hours = times.astype(np.int64) / 3.6e6
    series = [(maps[run], hours[run]) for run in chosen]
    with reproducible(torch, seed, check_threads(num_threads)):
        net = network()
        scale = torch.nn.ParameterList([torch.zeros(())])
        groups = [{"params": net.parameters(), "weight_decay": 1e-2}, {"params": scale, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, lr=LEARNING_RATE)
        recipe = [FLOATS, BITS, BLUR, FAR_HOURS, FAR_WEIGHT, BITS_A_DAY, PACE, PACE_AFTER]
        settings = {"seed": seed, "steps": steps, "data": data_digest(maps, times), "recipe": recipe}
        parts = {"network": net, "scale": scale, "optimiser": optimiser}
        losses = resume(checkpoint, settings, parts)
        for step in range(len(losses), steps):
            rate = LEARNING_RATE * _rate(step, steps)
            optimiser.param_groups[0]["lr"], optimiser.param_groups[1]["lr"] = rate, 5 * rate
            rng = np.random.default_rng([seed, 2, step])
            seen, when, owner = _batch(torch, series, rng)
            shift = torch.from_numpy(rng.uniform(0, 2, PHASES).astype(np.float32))
            with half_length():
                hashes = net(seen)
            hashes = hashes.float()
            pace = PACE if step >= PACE_AFTER * steps else 0.0
            cost = _loss(torch, hashes, net.code(hashes), scale[0], when, owner, shift, pace)
            optimiser.zero_grad()
            cost.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimiser.step()
            losses.append(float(cost.detach()))
            if progress is not None:
                progress(step + 1, steps, _recent(losses))
            if checkpoint and (step + 1) % CHECKPOINT_EVERY == 0:
                save_checkpoint(checkpoint, settings, {**states(parts), "losses": losses})
        net.eval()
        quality = evaluate(net, [(maps[run], times[run]) for run in held_out])
    return Training(net, _recent(losses), steps, seed, len(maps), quality)


def _recent(losses: list[float]) -> float:
    """The mean of the last steps'."""
    return float(np.mean(losses[-50:]))


def _checked(maps: NDArray[Any], times: NDArray[Any]) -> NDArray[np.datetime64]:
    """The times to the millisecond, once they and the maps make sense."""
    if maps.ndim != 3 or maps.shape[1:] != (CELLS, CELLS) or maps.dtype.kind != "f" or len(maps) < 8:
        raise ArgumentError(f"maps: expected floats (at least 8, {CELLS}, {CELLS}), got {maps.dtype} {maps.shape}")
    if times.shape != (len(maps),) or times.dtype.kind != "M" or np.isnat(times).any():
        raise ArgumentError(f"times: expected {len(maps)} known times, got {times.dtype} {times.shape}")
    return times.astype("datetime64[ms]")


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: a short warm-up, then half a cosine down to nothing."""
    warm = min(1.0, (step + 1) / min(WARM_UP, steps / 10 + 1))
    return warm * (0.5 + 0.5 * math.cos(math.pi * step / steps)) + 1e-3


def hashes_of(net: Any, maps: NDArray[Any]) -> NDArray[np.float32]:
    """The torch network on maps (n, 64, 64): float32 (n, 64). The oracle of the exported network."""
    torch = import_torch()
    with torch.no_grad():
        blocks = [net(torch.from_numpy(maps[i : i + 256].astype(np.float32))) for i in range(0, len(maps), 256)]
    hashes: NDArray[np.float32] = torch.cat(blocks).numpy()
    return hashes


def codes_of(net: Any, hashes: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The codes, uint8 (n, 8), of hashes of the torch network."""
    weight, bias = (values.detach().numpy() for values in (net.code.weight, net.code.bias))
    return binarize_phases(hashes, weight, bias, BITS_PER_PHASE)


def evaluate(net: Any, series: list[tuple[NDArray[Any], NDArray[np.datetime64]]]) -> Quality | None:
    """Retrieval among all frames of some series, each of which is another Sun; None where there are too few frames."""
    # Their times may overlap, though the Suns differ: each gets ten years of its own.
    times = [stamps - stamps[0] + np.timedelta64(3650 * i, "D") for i, (_, stamps) in enumerate(series)]
    when = np.datetime64("1970-01-01", "ms") + np.concatenate(times)
    hashes = hashes_of(net, np.concatenate([maps for maps, _ in series]))
    codes = codes_of(net, hashes)
    try:
        floats, floats_6h = (evaluate_window(hashes, when, "48h", span, "l2") for span in ("0h", "6h"))
        bits, bits_6h = (evaluate_window(codes, when, "48h", span, "hamming") for span in ("0h", "6h"))
    except ArgumentError:  # a handful of frames, of which none are similar
        return None
    return Quality(len(hashes), floats.precision, floats_6h.precision, bits.precision, bits_6h.precision, floats.chance)


# ---- export --------------------------------------------------------------------------------------------------------


def export(path: str | os.PathLike[str], training: Training, name: str, data: str) -> Encoder:
    """Write the network as ONNX: maps (n, 64, 64) in gauss to hashes (n, 64), and in its metadata the map to phases.

    Returns the encoder as loaded back from what was written.
    """
    metadata = {
        "name": name,
        "preset": "best",
        "front_end": FieldMap(CELLS).settings(),
        "scaling": "signed and unsigned square roots, and tanh(field / 200 G), inside the network",
        "projection": [_shortest(row) for row in training.network.code.weight.detach().numpy()],
        "offsets": _shortest(training.network.code.bias.detach().numpy()),
        "bits_per_phase": BITS_PER_PHASE,
        "training": {
            "data": data,
            "images": training.frames,
            "steps": training.steps,
            "seed": training.seed,
            "final_loss": training.loss,
            "held_out": asdict(training.quality) if training.quality else None,
        },
    }
    return write_encoder(path, to_onnx(training.network, "maps", (CELLS, CELLS)), metadata)


def _shortest(values: NDArray[np.float32]) -> list[float]:
    """The shortest numbers that are still the same float32."""
    return [float(str(value)) for value in values]
