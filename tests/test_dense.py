"""Fully connected networks: the same bytes wherever and however they are run, and what of ONNX is read for them."""

import hashlib
import math
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fasthash as fh
from fasthash import _dense, hamming
from fasthash._network import DenseNetwork, _product, dense_network
from fasthash._onnx import Model, Node
from fasthash.encoder import _Session

LEVELS = range(len(_dense.available_levels()))
GEMM = Node("Gemm", [], [], {})


def layers_of(rng, widths):
    return [(rng.normal(size=(a, b)).astype("f4"), rng.normal(size=b).astype("f4")) for a, b in pairwise(widths)]


def network_of(layers):
    return DenseNetwork([step for layer in layers for step in (_product(GEMM, *layer), (_dense.RELU, 0.0, None, 0))])


def oracle(rows, layers):
    """The network in float64, and what its rounding errors are relative to."""
    values = scale = rows.astype(np.float64)
    for weights, biases in layers:
        values = np.maximum(values @ weights + biases, 0)
        scale = np.abs(scale) @ np.abs(weights) + np.abs(biases)
    return values, scale


def elementwise(steps, values):
    """What steps make of float32 (n,), at every level; the product after them, by 1, changes nothing."""
    one = _product(GEMM, np.ones((1, 1), np.float32))
    chain = _dense.Chain([*((kind, value, None, 0) for kind, value in steps), one], 1)
    return [chain.run(level, np.ascontiguousarray(values)[:, None], len(values))[0][:, 0] for level in LEVELS]


def assert_same_bytes(arrays):
    for array in arrays:
        np.testing.assert_array_equal(array.view(np.uint32), arrays[0].view(np.uint32))


def test_there_is_a_kernel_for_every_instruction_set():
    assert set(hamming.available_levels()) & {"scalar", "avx2", "avx512", "neon"} <= set(_dense.available_levels())


@given(
    st.lists(st.integers(1, 70), min_size=2, max_size=5),
    st.integers(0, 60),
    st.sampled_from([0, 0.5, 0.9, 1]),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=150)
def test_networks_of_any_size_are_right_and_the_same_bytes(widths, n, zeros, seed):
    rng = np.random.default_rng(seed)
    layers = layers_of(rng, widths)
    rows = (rng.normal(size=(n, widths[0])) * (rng.random((n, widths[0])) >= zeros)).astype(np.float32)
    network = network_of(layers)
    found = [network._chain.run(level, rows, n)[0] for level in LEVELS]
    assert_same_bytes(found)
    assert found[0].shape == (n, widths[-1])
    expected, scale = oracle(rows, layers)
    assert (np.abs(found[0] - expected) <= 1e-5 * scale).all()
    for start, stop in ((0, 1), (n // 2, n // 2 + 1), (n // 3, n)):
        part = network.run(rows[start:stop])
        np.testing.assert_array_equal(part.view(np.uint32), found[0][start:stop].view(np.uint32))


@pytest.mark.parametrize("width", [200, 209, 257, 300])
def test_wide_layers_take_several_tiles(width):
    rng = np.random.default_rng(width)
    layers, rows = layers_of(rng, [400, width]), rng.random((50, 400), np.float32)
    chain = network_of(layers)._chain
    found = [chain.run(level, part, len(part))[0] for level in LEVELS for part in (rows, rows[:5])]
    assert_same_bytes([part[:5] for part in found])
    expected, scale = oracle(rows, layers)
    assert (np.abs(found[0] - expected) <= 1e-5 * scale).all()


def test_the_logarithm_has_an_error_of_less_than_a_unit_in_the_last_place():
    rng = np.random.default_rng(0)
    some = rng.integers(1, np.float32(np.inf).view(np.int32), 200_000, dtype=np.int32).view(np.float32)
    near_one = (1 + rng.normal(0, 0.1, 100_000) * 10.0 ** -rng.integers(0, 7, 100_000)).astype(np.float32)
    counts = np.arange(1, 100_000, dtype=np.float32)
    edges = np.float32([1, 2, 0.5, np.sqrt(0.5), np.nextafter(np.float32(np.sqrt(0.5)), np.float32(0)), np.e])
    ends = np.array([1, 2, 0x7FFFFF, 0x800000, 0x800001, 0x7F7FFFFF], np.int32).view(np.float32)
    x = np.concatenate([some, near_one[near_one > 0], counts, edges, ends])
    found = elementwise([(_dense.LOG, 0.0)], x)
    assert_same_bytes(found)
    expected = np.log(x.astype(np.float64))
    error = np.abs(found[0] - expected) / np.spacing(np.maximum(np.abs(expected.astype(np.float32)), 1e-30))
    assert error.max() < 1


def test_what_has_no_logarithm():
    x = np.float32([0, -0.0, -1, -1e-45, -np.inf, np.inf, np.nan])
    for found in elementwise([(_dense.LOG, 0.0)], x):
        np.testing.assert_array_equal(found, [-np.inf, -np.inf, np.nan, np.nan, np.nan, np.inf, np.nan])


def test_steps_of_one_number_are_numpys():
    x = np.random.default_rng(0).normal(size=1000).astype("f4")
    expected = np.maximum((x * np.float32(3.3)) + np.float32(0.1), 0)
    for found in elementwise([(_dense.MULTIPLY, 3.3), (_dense.ADD, 0.1), (_dense.RELU, 0.0)], x):
        np.testing.assert_array_equal(found, expected)


def nearest_float32(exact):
    """The float32 number nearest to a fraction, of two the even one."""
    guess = np.float32(float(exact))
    near = [guess, np.nextafter(guess, np.float32(np.inf)), np.nextafter(guess, np.float32(-np.inf))]
    finite = [number for number in near if np.isfinite(number)]
    return min(finite, key=lambda number: (abs(Fraction(float(number)) - exact), int(number.view(np.uint32)) & 1))


def test_a_fused_operation_is_rounded_once():
    """Sums that lie near the middle of two numbers, or below the least normal one, where two roundings differ."""
    rng = np.random.default_rng(0)
    bits = rng.integers(1 << 23, size=(3, 400), dtype=np.int32)
    exponents = 127 + rng.integers(-13, 14, (3, 400), dtype=np.int32)
    exponents[:, :100] -= 63  # products among the subnormal numbers
    exponents[2, :100] -= 50
    bits[:, 200:] &= 0x7FF000  # ties
    a, b, c = (exponents << 23 | bits).view(np.float32) * rng.choice(np.float32([-1, 1]), (3, 400))
    for x, y, z in zip(a, b, c, strict=True):
        chain = _dense.Chain([_product(GEMM, y.reshape(1, 1), z.reshape(1))], 1)
        expected = nearest_float32(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)))
        for level in LEVELS:
            assert chain.run(level, x.reshape(1, 1), 1)[0][0, 0] == expected


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_finite_is_an_error_that_names_the_row(wrong):
    rng = np.random.default_rng(0)
    network, rows = network_of([(np.full((9, 5), 2, "f4"), np.zeros(5, "f4"))]), rng.random((20, 9), np.float32)
    expected = network.run(rows)
    rows[13, 4] = wrong
    if wrong == -np.inf:  # of which ReLU makes 0
        assert (network.run(rows)[13] == 0).all()
        return
    for level in LEVELS:
        found, finite = network._chain.run(level, rows, 20)
        assert not finite
        np.testing.assert_array_equal(np.delete(found, 13, axis=0), np.delete(expected, 13, axis=0))
    with pytest.raises(fh.ArgumentError, match="hashes: row 13 holds NaN"):
        network.run(rows)


def test_an_output_of_0_is_positive():
    """Whether inputs of 0 are passed over must not show in its sign."""
    network = DenseNetwork([_product(GEMM, np.full((3, 2), -1e-30, "f4"), np.full(2, -0.0, "f4"))])
    rows = np.float32([[0, 0, 0], [1e-30, 0, 0], [1e-30, 0, 1]])
    for level in LEVELS:
        found = network._chain.run(level, rows[:2], 2)[0]
        assert (found.view(np.uint32) == 0).all()
        assert_same_bytes([found, network._chain.run(level, rows, 3)[0][:2]])


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((2, 9)), np.zeros((2, 8), "f4"), np.zeros(9, "f4"), np.zeros((1, 2, 9), "f4"), np.zeros((2, 9), ">f4")],
)
def test_wrong_inputs_are_refused(wrong):
    network = network_of(layers_of(np.random.default_rng(0), [9, 5]))
    with pytest.raises(fh.ArgumentError, match=r"inputs: expected float32 \(n, 9\), got"):
        network.run(wrong)


def test_inputs_of_any_layout():
    network = network_of(layers_of(np.random.default_rng(0), [9, 5]))
    rows = np.random.default_rng(0).random((20, 18), np.float32)
    expected = network.run(rows[::2, ::2].copy())
    np.testing.assert_array_equal(network.run(rows[::2, ::2]), expected)
    read_only = rows[::2, ::2].copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(network.run(read_only), expected)


DIGEST = "ae51e6798b8c3e0c599fadcfba7a626cb9dc997422441c7aea7437d5e3fcad29"


def descriptors(n):
    """Numbers that are the same on every host."""
    return (np.arange(n * 400).reshape(n, 400) * 7919 % 1009 % 37 / 64).astype(np.float32)


@pytest.mark.parametrize("level", hamming.available_levels())
def test_a_hash_is_the_same_bytes_everywhere(level, monkeypatch):
    """On every host, alone or with others, on any number of threads; the digest was taken once, for all of them."""
    monkeypatch.setenv("FASTHASH_SIMD", level)
    encoder, rows = fh.load_encoder("solar-paper"), descriptors(500)
    hashes = encoder.encode_inputs(rows)
    assert hashlib.sha256(hashes.astype("<f4").tobytes()).hexdigest() == DIGEST
    for threads in (2, -1):
        assert_same_bytes([hashes, encoder.encode_inputs(rows, threads, print)])
    for n in (1, 2, 7, 100):
        assert_same_bytes([hashes[:n], encoder.encode_inputs(rows[:n])])
    assert_same_bytes([hashes[:3], np.concatenate([encoder.encode_inputs(rows[i : i + 1]) for i in range(3)])])


def test_onnxruntime_is_not_loaded_for_it():
    code = "import sys, fasthash as fh; fh.load_encoder('solar-paper'); print('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_onnxruntime_says_the_same():
    encoder, rows = fh.load_encoder("solar-paper"), np.random.default_rng(0).random((100, 400), np.float32)
    assert isinstance(encoder._network, DenseNetwork)
    session = _Session(encoder.data)
    expected = session.run(rows)
    np.testing.assert_allclose(encoder.encode_inputs(rows), expected, atol=1e-5 * expected.max())
    assert session.dim == encoder.dim


# ---------------------------------------------------------------- ONNX


@pytest.fixture(scope="module")
def onnx():
    return pytest.importorskip("onnx", reason="needs the extra [train]")


def model_of(onnx, nodes, constants, n_in=6, n_out=4, inputs=("x",)):
    """A file of nodes, each (kind, inputs, output, attributes)."""
    infos = [onnx.helper.make_tensor_value_info(name, 1, ["n", n_in]) for name in inputs]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(kind, fed, [output], **attributes) for kind, fed, output, attributes in nodes],
        "network",
        infos,
        [onnx.helper.make_tensor_value_info("y", 1, ["n", n_out])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [onnx.helper.make_opsetid("", 13)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def constants_of(rng):
    return {
        "w": rng.normal(size=(6, 4)).astype("f4"),
        "wt": rng.normal(size=(4, 6)).astype("f4"),
        "b": rng.normal(size=4).astype("f4"),
        "b2": rng.normal(size=(1, 4)).astype("f4"),
        "one": np.float32(1.5),
        "two": np.float32([2]),
        "many": rng.normal(size=6).astype("f4"),
        "inf": np.full((6, 4), np.inf, "f4"),
        "doubles": rng.normal(size=(6, 4)),
        "s": rng.normal(size=(4, 4)).astype("f4"),
    }


OURS = {
    "plain": [("Gemm", ["x", "w", "b"], "y", {})],
    "transposed": [("Gemm", ["x", "wt", "b"], "y", {"transB": 1, "alpha": 1.0})],
    "no biases": [("Gemm", ["x", "w"], "y", {"transA": 0})],
    "biases in a row, ReLU": [("Gemm", ["x", "w", "b2"], "h", {}), ("Relu", ["h"], "y", {})],
    "one bias for all": [("Gemm", ["x", "w", "one"], "y", {"beta": 1.0})],
    "a constant on either side": [
        ("Mul", ["two", "x"], "h", {}), ("Add", ["h", "one"], "i", {}), ("Gemm", ["i", "w"], "y", {})
    ],
    "two layers": [("Gemm", ["x", "w", "b"], "h", {}), ("Relu", ["h"], "i", {}), ("Gemm", ["i", "s"], "y", {})],
    "logarithm": [
        ("Relu", ["x"], "h", {}), ("Add", ["h", "one"], "i", {}), ("Log", ["i"], "j", {}), ("Gemm", ["j", "w"], "y", {})
    ],
}  # fmt: skip
OTHERS = {
    "alpha": [("Gemm", ["x", "w", "b"], "y", {"alpha": 2.0})],
    "beta": [("Gemm", ["x", "w", "b"], "y", {"beta": 0.5})],
    "another step": [("Gemm", ["x", "w", "b"], "h", {}), ("Sigmoid", ["h"], "y", {})],
    "a branch": [("Gemm", ["x", "w", "b"], "h", {}), ("Add", ["h", "h"], "y", {})],
    "a constant of many": [("Mul", ["x", "many"], "h", {}), ("Gemm", ["h", "w"], "y", {})],
    "weights that are not finite": [("Gemm", ["x", "inf", "b"], "y", {})],
    "an input that is passed by": [("Gemm", ["x", "w", "b"], "h", {}), ("Gemm", ["x", "w", "b"], "y", {})],
    "weights on the left": [("Gemm", ["s", "wt"], "h", {}), ("Gemm", ["x", "w", "b"], "y", {})],
    "no product": [("Relu", ["x"], "y", {})],
}


@pytest.mark.parametrize("name", OURS)
def test_networks_that_are_ours(onnx, name):
    rng = np.random.default_rng(0)
    data = model_of(onnx, OURS[name], {k: v for k, v in constants_of(rng).items() if k not in ("inf", "doubles")})
    network, rows = dense_network(Model(data)), rng.normal(size=(30, 6)).astype("f4")
    np.testing.assert_allclose(network.run(rows), _Session(data).run(rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OTHERS)
def test_networks_that_are_left_to_onnxruntime(onnx, name):
    constants = constants_of(np.random.default_rng(0))
    assert dense_network(Model(model_of(onnx, OTHERS[name], constants))) is None


def test_two_inputs_and_layers_that_do_not_fit_are_left_to_onnxruntime(onnx):
    constants = constants_of(np.random.default_rng(0))
    assert dense_network(Model(model_of(onnx, OURS["plain"], constants, inputs=("x", "z")))) is None
    nodes = [("Gemm", ["x", "w"], "h", {}), ("Gemm", ["h", "w"], "y", {})]
    assert dense_network(Model(model_of(onnx, nodes, constants))) is None
    assert dense_network(Model(model_of(onnx, [("Gemm", ["x", "doubles"], "y", {})], constants))) is None


def test_weights_that_are_used_twice_are_left_to_onnxruntime(onnx):
    """They would be held twice, and a small file could fill the memory."""
    nodes = [("Gemm", ["x", "w"], "h", {}), *(("Gemm", [a, "s"], b, {}) for a, b in ("hi", "iy"))]
    constants = {name: constants_of(np.random.default_rng(0))[name] for name in "ws"}
    assert dense_network(Model(model_of(onnx, nodes, constants))) is None
    assert dense_network(Model(model_of(onnx, [*nodes[:1], ("Gemm", ["h", "s"], "y", {})], constants))) is not None


def test_shipped_networks_of_other_kinds_are_left_to_onnxruntime():
    ours = [name for name in fh.shipped_encoders() if isinstance(fh.load_encoder(name)._network, DenseNetwork)]
    assert ours == ["solar-paper"]


@pytest.mark.parametrize("name", fh.shipped_encoders())
def test_files_are_read_as_the_package_onnx_reads_them(onnx, name):
    data = fh.load_encoder(name).data
    model, theirs = Model(data), onnx.load_from_string(data)
    assert model.metadata == {entry.key: entry.value for entry in theirs.metadata_props}
    nodes = list(model.nodes())
    assert [(node.kind, node.inputs, node.outputs) for node in nodes] == [
        (node.op_type, list(node.input), list(node.output)) for node in theirs.graph.node
    ]
    for node, their in zip(nodes, theirs.graph.node, strict=True):
        numbers = {1: lambda of: of.f, 2: lambda of: of.i}
        assert node.attributes == {of.name: numbers.get(of.type, lambda _: None)(of) for of in their.attribute}
    for their in theirs.graph.initializer:
        np.testing.assert_array_equal(model.constants()[their.name], onnx.numpy_helper.to_array(their))


def read_all(data):
    """All that can be read of a file; None where it is no ONNX."""
    try:
        model = Model(data)
        return [list(model.nodes()), model.constants(), model.inputs_and_outputs(), dense_network(model)]
    except ValueError:
        return None


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_are_read_or_refused(data):
    read_all(data)
    read_all(b"\x3a" + bytes([len(data) & 0x7F]) + data[:127])  # as a graph
    tensor = b"\x2a" + bytes([len(data[:120])]) + data[:120]
    read_all(b"\x3a" + bytes([len(tensor)]) + tensor)


def test_damaged_files_are_read_or_refused():
    data = fh.load_encoder("solar-paper").data
    rng = np.random.default_rng(0)
    heads = np.flatnonzero(np.frombuffer(data, np.uint8))
    small = [int(i) for i in heads if i < 700 or i > len(data) - 900]
    for at in rng.choice(small, 300):
        read_all(bytes([data[at] ^ 1 << int(rng.integers(8))]).join((data[:at], data[at + 1 :])))
    for cut in rng.integers(0, len(data), 50):
        assert read_all(data[:cut]) is None


def test_numbers_of_the_wire():
    assert read_all(b"\x3a\x00") is not None
    for wrong in (
        b"",
        b"\x38\x05",
        b"\x3b",
        b"\x3a",
        b"\x3a\x05ab",
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0d\x00",
    ):
        assert read_all(wrong) is None


def tensor_of(dims, raw):
    """A file whose graph has but a float32 tensor; lengths up to 127."""
    fields = b"".join(b"\x08" + dim for dim in dims) + b"\x10\x01\x42\x01t\x4a" + bytes([len(raw)]) + raw
    tensor = b"\x2a" + bytes([len(fields)]) + fields
    return b"\x3a" + bytes([len(tensor)]) + tensor


def test_a_tensor_has_the_bytes_of_its_shape():
    huge = b"\xff" * 9 + b"\x01"
    assert Model(tensor_of([b"\x02", b"\x01"], bytes(8))).constants()["t"].shape == (2, 1)
    assert Model(tensor_of([], bytes(4))).constants()["t"].shape == ()
    assert Model(tensor_of([b"\x00", huge], b"")).constants()["t"] is None
    for dims, raw in (([b"\x03"], bytes(8)), ([huge, huge], bytes(4)), ([b"\x01"] * 40, bytes(7)), ([huge], b"")):
        assert read_all(tensor_of(dims, raw)) is None
    assert math.prod(Model(tensor_of([b"\x01"] * 30, bytes(4))).constants()["t"].shape) == 1
    with pytest.raises(ValueError, match="a tensor of 33 dimensions"):
        Model(tensor_of([b"\x01"] * 33, bytes(4))).constants()
