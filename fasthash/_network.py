"""Networks of fully connected layers, run by kernels of our own (csrc/dense.h): a row takes them less time than
onnxruntime spends around its work.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fasthash._dense import ADD, ALIGN, LOG, MULTIPLY, PRODUCT, RELU, Chain, available_levels, padded
from fasthash._onnx import Model, Node
from fasthash._validation import as_vectors
from fasthash.errors import ArgumentError
from fasthash.hamming import best_levels, simd_level

Floats = NDArray[np.float32]
_Step = tuple[int, float, Floats | None, int]  # kind, value, weights with the biases above them, number of outputs

_LEVELS = best_levels(available_levels())
_FLOAT32 = np.dtype(np.float32)
_MAX_WIDTH = 65536
_KINDS = {"Add": ADD, "Mul": MULTIPLY, "Log": LOG, "Relu": RELU, "Gemm": PRODUCT}
_GEMM = {"alpha": 1.0, "beta": 1.0, "transA": 0}
_NO_BIASES = np.zeros(1, np.float32)


class DenseNetwork:
    """A chain of steps; get one from :func:`dense_network`. Its instruction set is the one in use when it was made.

    Outputs are the same bits for every instruction set, for a row alone and among others, and on any number of threads.
    n_in, dim: numbers in a row of inputs, of outputs; batch: rows that are worth a thread.
    """

    batch = 192

    def __init__(self, steps: list[_Step]) -> None:
        weights = [(matrix, n_out) for _, _, matrix, n_out in steps if matrix is not None]
        self.n_in, self.dim = len(weights[0][0]) - 1, weights[-1][1]
        self._chain, self._level = Chain(steps, self.n_in), _LEVELS[simd_level()]

    def run(self, inputs: Floats) -> Floats:
        """float32 (n, n_in) to float32 (n, dim). Raises ArgumentError, also where an output is not finite."""
        if inputs.dtype != _FLOAT32 or inputs.ndim != 2 or inputs.shape[1] != self.n_in:
            raise ArgumentError(f"inputs: expected float32 (n, {self.n_in}), got {inputs.dtype} {inputs.shape}")
        outputs: Floats
        outputs, finite = self._chain.run(self._level, np.ascontiguousarray(inputs), len(inputs))
        return outputs if finite else as_vectors("hashes", outputs)


def dense_network(model: Model) -> DenseNetwork | None:
    """The network of a file, where it is a chain of Gemm, Relu, Log, and Add and Mul of one constant; else None.

    None means that there is more to it than this module knows, not that it is wrong. Raises ValueError where the bytes
    are no ONNX.
    """
    steps: list[_Step] = []
    constants: dict[str, Floats | None] = {}
    inputs, outputs = model.inputs_and_outputs()
    for node in model.nodes():
        if node.kind not in _KINDS:
            return None  # before the constants are looked at: networks of another kind have many
        if not steps:
            constants = model.constants()
            inputs = [name for name in inputs if name not in constants]
        step = _step(node, inputs, constants)
        if step is None:
            return None
        if step[0] == PRODUCT:
            constants[node.inputs[1]] = None  # each use of the same weights would take their memory again
        steps.append(step)
        inputs = node.outputs
    return DenseNetwork(steps) if inputs == outputs and _fit_together(steps) else None


def _step(node: Node, inputs: list[str], constants: dict[str, Floats | None]) -> _Step | None:
    """What a node does to the one thing that it is fed besides constants."""
    values = [value for name in node.inputs if name not in inputs and (value := constants.get(name)) is not None]
    if len(inputs) != 1 or node.inputs.count(inputs[0]) != 1 or len(values) != len(node.inputs) - 1:
        return None
    kind = _KINDS[node.kind]
    if kind == PRODUCT:
        return _product(node, *values) if node.inputs[0] == inputs[0] and len(values) in (1, 2) else None
    of_one = [float(value.reshape(-1)[0]) for value in values if value.shape in ((), (1,))]
    if node.attributes or len(of_one) != len(values) or len(values) != (kind in (ADD, MULTIPLY)):
        return None
    return kind, sum(of_one), None, 0


def _product(node: Node, weights: Floats, biases: Floats = _NO_BIASES) -> _Step | None:
    """Weights and biases as csrc/dense.h wants them: in one matrix, aligned, rows of inputs, the biases above them."""
    transposed = node.attributes.get("transB", 0)
    known = {**_GEMM, "transB": transposed}
    if {**known, **node.attributes} != known or transposed not in (0, 1) or weights.ndim != 2:
        return None
    n_in, n_out = weights.shape[::-1] if transposed else weights.shape
    if not (0 < n_in <= _MAX_WIDTH and 0 < n_out <= _MAX_WIDTH and biases.shape in ((), (1,), (n_out,), (1, n_out))):
        return None
    width = padded(n_out)
    room = np.zeros((n_in + 1) * width + ALIGN, np.float32)
    start = -(room.ctypes.data // room.itemsize) % ALIGN
    matrix = room[start : start + (n_in + 1) * width].reshape(n_in + 1, width)
    matrix[0, :n_out] = biases
    matrix[1:, :n_out] = weights.T if transposed else weights
    return (PRODUCT, 0.0, matrix, n_out) if np.isfinite(matrix).all() else None


def _fit_together(steps: list[_Step]) -> bool:
    """Whether there are products, and each takes as many numbers as the one before it gives."""
    products = [(len(matrix) - 1, n_out) for _, _, matrix, n_out in steps if matrix is not None]
    return bool(products) and all(a[1] == b[0] for a, b in pairwise(products))
