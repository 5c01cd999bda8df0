"""Training of the paper's solar encoder: an autoencoder over MFGDV."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._training import import_onnx, import_torch, reproducible, write_encoder
from fasthash._validation import check_choice, check_int
from fasthash.encoder import Encoder
from fasthash.errors import ArgumentError
from fasthash.solar.magnetogram import MagnetogramHistogram

# Pixels of a cell of a 256 x 256 frame: the counts whose logarithm the network sees, whatever the frame's real size.
_CELL_PIXELS = 256 * 256 / 25
_PER_LOG = np.float32(1 / np.log1p(_CELL_PIXELS))


@dataclass(frozen=True)
class Preset:
    """A named recipe. ``layers`` are the encoder's widths; the decoder mirrors them."""

    layers: tuple[int, ...]
    learning_rate: float
    batch_size: int


# Table 1 of Grycuk and Scherer. The paper does not give the optimiser: Adam with its usual rate.
PRESETS = {"paper": Preset(layers=(400, 200, 100, 50), learning_rate=1e-3, batch_size=64)}


@dataclass(frozen=True)
class Training:
    """What training gave: weights (n_in, n_out) and biases of the encoder's layers, and the loss of each epoch."""

    preset: str
    weights: list[NDArray[np.float32]]
    biases: list[NDArray[np.float32]]
    losses: list[float]
    seed: int


def autoencoder(preset: str = "paper") -> tuple[Any, Any]:
    """The untrained torch networks ``(encoder, decoder)`` of Table 1: ReLU after each layer, Tanh after the last."""
    nn = import_torch().nn
    layers = PRESETS[check_choice("preset", preset, tuple(PRESETS))].layers

    def stack(widths: tuple[int, ...], last: Any) -> Any:
        steps = [step for a, b in pairwise(widths) for step in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*steps[:-1], last)

    return stack(layers, nn.ReLU()), stack(layers[::-1], nn.Tanh())


def scale(shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shares of a cell's pixels to the network's input, both in [0, 1]: the logarithm of 1 + the counts.

    A quiet and an active cell differ in the few pixels of the outer bins, which only a logarithm (or a root) lets
    count. An empty bin stays 0, so that the many bins that hardly ever fill do not push units into never firing.
    """
    return (np.log1p(shares * np.float32(_CELL_PIXELS)) * _PER_LOG).astype(np.float32)


def train(
    shares: NDArray[np.float32],
    preset: str = "paper",
    epochs: int = 40,
    seed: int = 0,
    progress: Callable[[int, int, float], None] | None = None,
) -> Training:
    """Train the autoencoder to give back its input (mean squared error; section 2.3).

    Parameters
    ----------
    shares : float32 array (n, 400)
        Descriptors of the training frames, as MagnetogramHistogram makes them.
    epochs, seed : int
        The paper's 40 epochs; the same seed, data and machine give the same network.
    progress : callable(epoch, epochs, loss), optional
    """
    torch = import_torch()
    recipe = PRESETS[check_choice("preset", preset, tuple(PRESETS))]
    check_int("epochs", epochs, 1)
    check_int("seed", seed, 0)
    if shares.ndim != 2 or shares.shape[1] != recipe.layers[0] or len(shares) < 2:
        wanted = f"at least 2 images of {recipe.layers[0]} values"
        raise ArgumentError(f"shares: training needs {wanted}, got shape {shares.shape}")
    with reproducible(torch, seed):
        encoder, decoder = autoencoder(preset)
        inputs = torch.from_numpy(scale(shares))
        optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=recipe.learning_rate)
        losses = []
        for epoch in range(epochs):
            total = 0.0
            for rows in torch.randperm(len(inputs)).split(recipe.batch_size):
                batch = inputs[rows]
                loss = torch.nn.functional.mse_loss(decoder(encoder(batch)), batch)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += float(loss.detach()) * len(rows)
            losses.append(total / len(inputs))
            if progress is not None:
                progress(epoch + 1, epochs, losses[-1])
    linear = [layer for layer in encoder if isinstance(layer, torch.nn.Linear)]
    weights = [np.ascontiguousarray(layer.weight.detach().numpy().T) for layer in linear]
    biases = [layer.bias.detach().numpy().copy() for layer in linear]
    return Training(preset, weights, biases, losses, seed)


def hashes_of(training: Training, shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """The encoder in NumPy: float32 (n, 400) to (n, 50). The oracle of the exported network."""
    values = scale(shares)
    for weight, bias in zip(training.weights, training.biases, strict=True):
        values = np.maximum(values @ weight + bias, 0)
    return values


def export(
    path: str | os.PathLike[str],
    training: Training,
    front_end: MagnetogramHistogram,
    shares: NDArray[np.float32],
    name: str,
    data: str,
) -> Encoder:
    """Write the encoder half as ONNX, with scaling inside the network and everything else in its metadata.

    ``shares`` are the training frames' descriptors: the median of each unit over them is its bit's threshold.
    Returns the encoder as loaded back from what was written.
    """
    hashes = hashes_of(training, shares)
    thresholds = np.median(hashes, axis=0)
    metadata = {
        "name": name,
        "preset": training.preset,
        "front_end": front_end.settings(),
        "scaling": f"log(1 + {_CELL_PIXELS} * share) / log(1 + {_CELL_PIXELS}), inside the network",
        "thresholds": [float(value) for value in thresholds],
        "training": {
            "data": data,
            "images": len(shares),
            "epochs": len(training.losses),
            "seed": training.seed,
            "final_loss": training.losses[-1],
            "dead_units": int((hashes.max(axis=0) <= 0).sum()),
        },
    }
    return write_encoder(path, _onnx_model(training), metadata)


def _onnx_model(training: Training) -> Any:
    onnx = import_onnx()
    helper, numpy_helper, real = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT
    constants = {"one": np.float32(1), "cell_pixels": np.float32(_CELL_PIXELS), "per_log": _PER_LOG}
    nodes = [
        helper.make_node("Mul", ["shares", "cell_pixels"], ["counts"]),
        helper.make_node("Add", ["counts", "one"], ["counts_1"]),
        helper.make_node("Log", ["counts_1"], ["logs"]),
        helper.make_node("Mul", ["logs", "per_log"], ["layer_0"]),
    ]
    initialisers = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    depth = len(training.weights)
    for i, (weight, bias) in enumerate(zip(training.weights, training.biases, strict=True), start=1):
        initialisers += [numpy_helper.from_array(weight, f"weight_{i}"), numpy_helper.from_array(bias, f"bias_{i}")]
        nodes.append(helper.make_node("Gemm", [f"layer_{i - 1}", f"weight_{i}", f"bias_{i}"], [f"linear_{i}"]))
        nodes.append(helper.make_node("Relu", [f"linear_{i}"], ["hashes" if i == depth else f"layer_{i}"]))
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("shares", real, ["n", training.weights[0].shape[0]])],
        [helper.make_tensor_value_info("hashes", real, ["n", training.weights[-1].shape[1]])],
        initialisers,
    )
    # Opset 13 and IR 8 are read by every onnxruntime that fasthash allows.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="fasthash")
