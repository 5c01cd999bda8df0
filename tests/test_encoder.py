"""Encoders: what they make of images, and that an altered file is never used."""

import json
import sys

import numpy as np
import pytest

import fasthash as fh
from fasthash.encoder import CHECKSUM_BLANK, METADATA_KEY, Encoded, Encoder, Failure, seal
from fasthash.io import Image, read_image


@pytest.fixture(scope="module")
def encoder(encoder_path):
    return fh.load_encoder(encoder_path)


def test_paths_arrays_images_and_batches_agree(encoder, frames):
    expected = encoder.encode([str(path) for path in frames[:5]])
    assert expected.shape == (5, encoder.dim)
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(encoder.encode([read_image(path) for path in frames[:5]]), expected)
    np.testing.assert_allclose(encoder.encode(frames[0]), expected[:1], atol=1e-6)
    results = list(encoder.encode_files([str(path) for path in frames[:5]]))
    np.testing.assert_array_equal(np.stack([item.hash for item in results]), expected)
    assert all(item.image.pixels.size == 0 for item in results)


def test_sunpy_maps_are_files(encoder, frames):
    pytest.importorskip("sunpy.map", reason="needs the extra [solar]", exc_type=ImportError)
    import sunpy.map

    np.testing.assert_array_equal(encoder.encode(sunpy.map.Map(frames[0])), encoder.encode(frames[0]))


def test_arrays_one_and_many(encoder):
    images = np.random.default_rng(0).normal(0, 100, (3, 60, 60)).astype("f4")
    together = encoder.encode(images)
    assert together.shape == (3, encoder.dim)
    np.testing.assert_allclose(encoder.encode(images[1]), together[1:2], atol=1e-6)
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_one_bad_image_stops_encode_and_is_named(encoder, frames):
    with pytest.raises(fh.ReadError, match=r"missing\.fits"):
        encoder.encode([frames[0], "missing.fits"])


def test_encode_files_goes_on_in_order(encoder, frames, tmp_path):
    bad = tmp_path / "bad.fits"
    bad.write_bytes(b"nothing")
    paths = [str(path) for path in frames]
    mixed = [paths[0], str(bad), *paths[1:], str(bad)]
    results = list(encoder.encode_files(mixed))
    assert [type(item) for item in results] == [Encoded, Failure, *[Encoded] * (len(paths) - 1), Failure]
    assert [item.image.path for item in results if isinstance(item, Encoded)] == paths
    assert all("bad.fits" in item.message for item in results if isinstance(item, Failure))


def test_a_file_too_large_for_the_memory_does_not_end_the_others(encoder, frames, monkeypatch):
    def describe(image, num_threads=1):
        if image.path == str(frames[0]):
            raise MemoryError
        return type(encoder.front_end).describe(encoder.front_end, image, num_threads)

    monkeypatch.setattr(encoder.front_end, "describe", describe)
    failed, other = encoder.encode_files([str(frame) for frame in frames[:2]])
    assert failed == Failure(str(frames[0]), f"{frames[0]}: not enough memory to decode it")
    assert isinstance(other, Encoded)


def test_binarize_thresholds_each_unit(encoder):
    hashes = np.random.default_rng(0).random((4, encoder.dim), np.float32)
    bits = fh.unpack_bits(encoder.binarize(hashes), encoder.n_bits)
    np.testing.assert_array_equal(bits, hashes > np.array(encoder.metadata["thresholds"], np.float32))


def test_every_damaged_byte_is_noticed(encoder_path, tmp_path):
    data = encoder_path.read_bytes()
    path = tmp_path / "damaged.onnx"
    rng = np.random.default_rng(0)
    cuts = [data[:n] for n in rng.integers(0, len(data), 20)]
    flips = [
        bytes([data[i] ^ 1 << int(rng.integers(8))]).join((data[:i], data[i + 1 :]))
        for i in rng.integers(0, len(data), 60)
    ]
    for damaged in [*cuts, *flips, data + b"\0", b""]:
        path.write_bytes(damaged)
        with pytest.raises(fh.EncoderError, match=r"damaged\.onnx"):
            fh.load_encoder(path)


@pytest.mark.parametrize("name", ["no-such-encoder", "/nowhere/x.onnx", ""])
def test_unknown_encoders_are_named(name):
    with pytest.raises(fh.EncoderError, match=r"comes with fasthash|director"):
        fh.load_encoder(name)


def test_another_onnx_file_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs the extra [train]")
    info = [onnx.helper.make_tensor_value_info(name, 1, ["n", 2]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", info[:1], info[1:])
    path = tmp_path / "other.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(fh.EncoderError, match=r"other\.onnx.*not a fasthash encoder"):
        fh.load_encoder(path)


# ---- files that were made on purpose: their checksum is right


@pytest.fixture(scope="module")
def onnx():
    return pytest.importorskip("onnx", reason="needs the extra [train]")


def sealed(onnx, nodes, shapes=(("n", 2), ("n", 2)), types=(1, 1), constants=(), **metadata):
    """An encoder's file of nodes from x to y, each (kind, inputs, output, attributes)."""
    helper = onnx.helper
    infos = [helper.make_tensor_value_info(*of) for of in zip("xy", types, shapes, strict=True)]
    made = [helper.make_node(kind, fed, [output], **attributes) for kind, fed, output, attributes in nodes]
    tensors = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants]
    graph = helper.make_graph(made, "network", infos[:1], infos[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    about = {"name": "made", "front_end": {"kind": "field-map", "size": 64}, "thresholds": [0, 0], **metadata}
    helper.set_model_props(model, {METADATA_KEY: json.dumps(about), "checksum": CHECKSUM_BLANK.decode()})
    return seal(model.SerializeToString())


SIGMOID = [("Sigmoid", ["x"], "y", {})]
PHASES = {"offsets": [0, 0], "projection": [[1, 1], [1, 1]], "bits_per_phase": 4}


def test_an_encoder_made_on_purpose(onnx):
    made = Encoder(sealed(onnx, SIGMOID), "made.onnx")
    assert (made.dim, made.n_bits, Encoder(sealed(onnx, SIGMOID, **PHASES), "made.onnx").n_bits) == (2, 2, 8)


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ({"name": 5}, "name: expected text, got 5"),
        ({"thresholds": [float("nan"), 0]}, "thresholds: expected finite numbers"),
        ({"thresholds": [[0, 0], [0, 0]]}, "thresholds"),
        ({"thresholds": [0] * 3}, "projection"),
        ({"percentile": "50"}, "percentile: expected a number, got '50'"),
        ({"percentile": 101}, "percentile"),
        ({**PHASES, "bits_per_phase": -4}, "bits_per_phase"),
        ({**PHASES, "bits_per_phase": 4.0}, "bits_per_phase"),
        ({**PHASES, "bits_per_phase": True}, "bits_per_phase"),
        ({**PHASES, "bits_per_phase": 10**12}, "bits_per_phase"),
        ({**PHASES, "offsets": [float("inf"), 0]}, "offsets"),
        ({**PHASES, "projection": [[1, float("nan")], [1, 1]]}, "projection: expected finite numbers"),
        ({**PHASES, "projection": [1, 1]}, "projection"),
        ({**PHASES, "percentile": 50}, "percentile"),
        ({"front_end": {"kind": "field-map", "size": "64"}}, "size: expected an integer, got '64'"),
        ({"front_end": {"kind": "no-such"}}, "front end 'no-such'"),
    ],
)  # fmt: skip
def test_wrong_metadata_are_one_line_that_names_the_file(metadata, named, onnx):
    with pytest.raises(fh.EncoderError, match=rf"^made\.onnx: not a usable encoder: .*{named}[^\n]*$"):
        Encoder(sealed(onnx, SIGMOID, **metadata), "made.onnx")


def test_networks_of_another_kind_are_refused(onnx):
    wide = ("n", 70_000)
    for wrong in (
        {"nodes": SIGMOID, "shapes": (("n", "m"), ("n", 2))},
        {"nodes": SIGMOID, "shapes": (("n", 3, 2), ("n", 3, 2))},
        {"nodes": SIGMOID, "shapes": (wide, wide), "percentile": 50},
        {"nodes": [("Cast", ["x"], "y", {"to": 11})], "types": (1, 11)},
        {"nodes": [("Cast", ["x"], "y", {"to": 1})], "types": (10, 1)},
    ):
        with pytest.raises(fh.EncoderError, match=r"^made\.onnx: not a usable encoder: "):
            Encoder(sealed(onnx, **wrong), "made.onnx")


def test_networks_that_fail_when_they_run(onnx):
    summed = [("ReduceSum", ["x", "axes"], "y", {"keepdims": 1})]
    with pytest.raises(fh.EncoderError, match=r"the network makes \(1, 2\) of \(3, 2\)"):
        Encoder(sealed(onnx, summed, constants=[("axes", [0])]), "made.onnx").encode_inputs(np.ones((3, 2), "f4"))
    reshaped = [("Reshape", ["x", "shape"], "h", {}), ("Sigmoid", ["h"], "y", {})]
    with pytest.raises(fh.EncoderError, match="the network failed: "):
        Encoder(sealed(onnx, reshaped, constants=[("shape", [5, 2])]), "made.onnx").encode_inputs(np.ones((3, 2), "f4"))


@pytest.mark.parametrize("name", ["solar", "solar-paper"])
def test_a_wrong_instruction_set_is_not_the_files_fault(name, monkeypatch):
    monkeypatch.setenv("FASTHASH_SIMD", "mmx")
    with pytest.raises(fh.FastHashError, match=r"^FASTHASH_SIMD: 'mmx'"):
        fh.load_encoder(name)


@pytest.mark.parametrize("name", ["solar", "solar-paper"])
@pytest.mark.parametrize("change", [
    lambda rows: rows.astype(float), lambda rows: rows.astype(">f4"), lambda rows: rows[0], lambda rows: rows[:, :-1],
    lambda rows: rows[:, None], lambda rows: rows.tolist(), lambda _: np.float32(1),
])  # fmt: skip
def test_inputs_of_a_wrong_kind_are_refused(name, change):
    row = {"solar": (64, 64), "solar-paper": (400,)}[name]
    encoder, rows = fh.load_encoder(name), np.ones((3, *row), np.float32)
    wanted = r"^inputs: expected float32 \(n, " + ", ".join(map(str, row))
    for progress in (None, print):
        with pytest.raises(fh.ArgumentError, match=wanted):
            encoder.encode_inputs(change(rows), progress=progress if np.ndim(change(rows)) else None)
    assert encoder.encode_inputs(rows[:0], progress=print).shape == (0, encoder.dim)
    assert encoder.encode_inputs(rows[:0]).shape == (0, encoder.dim)


def test_progress_counts_every_row_in_order_on_any_number_of_threads():
    encoder = fh.load_encoder("solar-paper")
    rows, told = np.ones((1000, 400), np.float32), []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        encoder.encode_inputs(rows, 4, lambda *done: told.append(done))
    finally:
        sys.setswitchinterval(interval)
    assert told == [(min(done, 1000), 1000) for done in range(192, 1153, 192)]


@pytest.mark.parametrize("name", fh.shipped_encoders())
def test_shipped_encoders(name, frames):
    encoder = fh.load_encoder(name)
    assert encoder.name == name
    hashes = encoder.encode(list(frames[:3]))
    assert hashes.shape == (3, encoder.dim)
    assert encoder.binarize(hashes).shape == (3, (encoder.n_bits + 7) // 8)


def test_the_sun_is_turned_by_its_header(encoder):
    """The same Sun written with CROTA2 = 180, or 90, gives the same hash."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(0, 200, (80, 80)).astype("f4")
    header = {"CRPIX1": 40.5, "CRPIX2": 40.5, "CDELT1": 24.0, "CDELT2": 24.0, "RSUN_OBS": 960.0, "CROTA2": 0.0}
    upright = encoder.encode(Image(pixels, header=header))
    for quarter_turns in (1, 2, 3):
        # CROTA2 turns north clockwise in an array whose rows run upwards: from the last row to the last column.
        turned = np.rot90(pixels, quarter_turns)
        image = Image(np.ascontiguousarray(turned), header={**header, "CROTA2": 90.0 * quarter_turns})
        np.testing.assert_allclose(encoder.encode(image), upright, atol=1e-6)


def test_pixels_off_the_disk_never_count(encoder):
    pixels = np.random.default_rng(0).normal(0, 200, (80, 80)).astype("f4")
    header = {"CRPIX1": 40.5, "CRPIX2": 40.5, "CDELT1": 24.0, "CDELT2": 24.0, "RSUN_OBS": 840.0}
    y, x = np.mgrid[:80, :80] - 39.5
    off = np.hypot(x, y) > 35
    noisy, missing = pixels.copy(), pixels.copy()
    noisy[off], missing[off] = 999, np.nan
    expected = encoder.encode(Image(missing, header=header))
    np.testing.assert_array_equal(encoder.encode(Image(noisy, header=header)), expected)
    np.testing.assert_array_equal(encoder.encode(missing), expected)


def test_a_wrong_array_among_many_is_named(encoder):
    with pytest.raises(fh.ArgumentError, match=r"images\[1\]"):
        encoder.encode([np.ones((30, 30), "f4"), np.zeros(5)])


def test_an_array_of_paths_and_a_sequence_of_maps(encoder, frames):
    paths = np.array([str(path) for path in frames[:2]])
    expected = encoder.encode(list(frames[:2]))
    np.testing.assert_array_equal(encoder.encode(paths), expected)
    sunpy_map = pytest.importorskip("sunpy.map", reason="needs the extra [solar]", exc_type=ImportError)
    maps = sunpy_map.Map([str(path) for path in frames[:2]], sequence=True)
    np.testing.assert_array_equal(encoder.encode(maps), expected)


@pytest.mark.parametrize("wrong", [3, None, b"x", "a\0b"])
def test_what_is_no_encoder_is_refused(wrong):
    with pytest.raises(fh.FastHashError):
        fh.load_encoder(wrong)


@pytest.mark.parametrize("name", fh.shipped_encoders())
def test_rows_are_hashed_one_by_one_in_batches_and_on_threads_alike(name, frames):
    """What a file's hash is does not depend on the files beside it."""
    encoder = fh.load_encoder(name)
    rows = np.stack([encoder.front_end.describe(read_image(path)) for path in frames[:12]] * 11)
    done = []
    together = encoder.encode_inputs(rows, 2, lambda *now: done.append(now))
    assert done[-1] == (132, 132)
    np.testing.assert_array_equal(together, encoder.encode_inputs(rows))
    alone = np.concatenate([encoder.encode_inputs(row[None]) for row in rows[:12]])
    np.testing.assert_array_equal(together[:12], alone)


def test_a_network_that_says_nan_is_an_error(encoder, frames):
    row = encoder.front_end.describe(read_image(frames[0]))[None].copy()
    row[0, 0] = np.nan
    with pytest.raises(fh.ArgumentError, match="hashes: row 0 holds NaN"):
        encoder.encode_inputs(row)
