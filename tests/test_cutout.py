"""The cut-out: any image of a source becomes the same, whatever file, depth, size and unit it comes in."""

import io
import zipfile

import bad_files
import numpy as np
import pytest
from astropy.io import fits
from commands import run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

import fasthash as fh
from fasthash.encoder import FRONT_ENDS, _front_end
from fasthash.errors import ArgumentError, FastHashError, ReadError
from fasthash.io import Image, find_images, read_image, resize
from fasthash.radio.cutout import STRETCHES, Cutout, above_noise
from fasthash.radio.dataset import label_of
from fasthash.radio.sky import PIXEL, pixel_scale, position_from_name, sky_pairs


def source(size=150, place=(3.0, -5.0), width=2.0):
    """A round source near the middle, as published: whole numbers, 0 around it, the peak 255."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    flux = 255 * np.exp(-0.5 * ((x - place[0]) ** 2 + (y - place[1]) ** 2) / width**2)
    flux[flux < 4] = 0
    return np.rint(flux * 255 / flux.max()).astype(np.uint8)


def saved(grey, suffix, **settings):
    file = io.BytesIO()
    Pillow.fromarray(grey).save(file, suffix, **settings)
    return file.getvalue()


def as_fits(values, **cards):
    file = io.BytesIO()
    hdu = fits.PrimaryHDU(np.ascontiguousarray(values[::-1]))
    hdu.header.update(cards)
    hdu.writeto(file)
    return file.getvalue()


# ---- the same pixels, whatever they come in ------------------------------------------------------------------------


def containers():
    grey = source()
    colour = np.repeat(grey[..., None], 3, axis=2)
    opaque = np.concatenate([colour, np.full_like(grey, 255)[..., None]], axis=2)
    npy = io.BytesIO()
    np.save(npy, grey)
    yield "grey.png", saved(grey, "PNG")
    yield "rgb.png", saved(colour, "PNG")
    yield "rgba.png", saved(opaque, "PNG")
    yield "16-bit.png", saved(grey.astype(np.uint16) * 257, "PNG")
    yield "lossless.jp2", saved(grey, "JPEG2000")
    yield "array.npy", npy.getvalue()
    yield "whole.fits", as_fits(grey.astype(np.int16), CDELT1=-PIXEL / 3600, CDELT2=PIXEL / 3600)
    yield "jansky.fits", as_fits(grey * np.float32(2.0**-12), CRVAL1=150.0)
    yield "four-axes.fits", as_fits(grey[None, None].astype(np.float32)[:, :, ::-1])


@pytest.mark.parametrize(
    ("name", "data"), list(containers()), ids=lambda value: value if isinstance(value, str) else ""
)
@pytest.mark.parametrize("front_end", [Cutout(), Cutout(224, None), Cutout(40, 150, "asinh")], ids=repr)
def test_the_same_pixels_give_the_same(tmp_path, name, data, front_end):
    path = tmp_path / name
    path.write_bytes(data)
    expected = front_end.describe(Image(source().astype(np.float32)))
    np.testing.assert_array_equal(front_end.describe(read_image(path)), expected)
    assert expected.max() == 1 or front_end.size > 150  # a peak between two pixels


@pytest.mark.parametrize("stretch", STRETCHES)
def test_what_comes_out(stretch):
    row = Cutout(72, 80, stretch).describe(Image(source().astype(np.float32)))
    assert row.shape == (72, 72)
    assert row.dtype == np.float32
    assert row.flags.c_contiguous
    assert row.min() == 0
    assert row.max() == 1
    linear = Cutout(72, 80).describe(Image(source().astype(np.float32)))
    assert (np.diff(row.ravel()[np.argsort(linear, axis=None)]) >= 0).all()
    assert (row >= linear - 1e-6).all()  # every stretch lifts


def test_a_square_of_whole_pixels_is_cut_as_it_is():
    pixels = source().astype(np.float32)
    np.testing.assert_array_equal(Cutout(80, 80).describe(Image(pixels)), pixels[35:115, 35:115] / np.float32(255))


@settings(max_examples=30, deadline=None)
@given(st.integers(40, 200), st.integers(16, 120))
def test_a_larger_field_of_the_same_sky_changes_nothing(size, crop):
    """Griese's cut-outs have 300 x 300 pixels where the others have 150 x 150, of the same angle."""
    size += size % 2  # the middle stays between pixels
    wide = source(300).astype(np.float32)
    narrow = wide[150 - size // 2 : 150 + size // 2, 150 - size // 2 : 150 + size // 2]
    front_end = Cutout(48, min(crop, size))
    np.testing.assert_array_equal(front_end.describe(Image(wide)), front_end.describe(Image(narrow)))


def test_a_brighter_source_outside_of_the_square_does_not_matter():
    pixels = source(300).astype(np.float32)
    expected = Cutout().describe(Image(pixels))
    dimmed = np.where(pixels > 0, pixels / 4, 0).astype(np.float32)
    dimmed[10:13, 10:13] = 255
    np.testing.assert_array_equal(Cutout().describe(Image(dimmed)), expected)


def test_a_small_image_is_filled_up_with_background():
    pixels = source(30, (0, 0)).astype(np.float32)
    row = Cutout(80, 80).describe(Image(pixels))
    np.testing.assert_array_equal(row[25:55, 25:55], pixels / np.float32(255))
    assert np.count_nonzero(row) == np.count_nonzero(pixels)


def test_the_scale_of_the_pixels_is_the_headers():
    """Twice as fine pixels, twice as many of them: the same sky."""
    coarse = Cutout(40, 80).describe(Image(source(150, (0, 0), 6).astype(np.float32)))
    header = {"CDELT1": -PIXEL / 7200, "CDELT2": PIXEL / 7200}
    fine = Cutout(40, 80).describe(Image(source(300, (0, 0), 12).astype(np.float32), header=header))
    np.testing.assert_allclose(fine, coarse, atol=0.02)


@pytest.mark.parametrize(
    ("header", "scale"),
    [
        ({"CDELT1": -0.0005, "CDELT2": 0.0005}, 1.8),
        ({"CD1_1": 0.0, "CD1_2": 0.001, "CD2_1": 0.001, "CD2_2": 0.0}, 3.6),
        ({"CD1_1": -0.001, "CD2_2": 0.001}, 3.6),
        ({"CD1_2": 0.001, "CD2_1": 0.001}, 3.6),  # turned by a right angle; what is not there is 0
        ({}, PIXEL),
        ({"CDELT1": 1.0, "CDELT2": 1.0}, PIXEL),  # no unit that a sky has
        ({"CDELT1": 0.0, "CDELT2": 0.0005}, PIXEL),
        ({"CDELT1": "wide", "CDELT2": 0.0005}, PIXEL),
        ({"CDELT1": 0.0005}, PIXEL),
    ],
)
def test_pixel_scale(header, scale):
    assert pixel_scale(header) == pytest.approx(scale)


# ---- noise, and what is missing ------------------------------------------------------------------------------------


def noisy(seed=0, unit=2e-4):
    rng = np.random.default_rng(seed)
    return (source() / 255 * 200 * unit + rng.normal(0, unit, (150, 150))).astype(np.float32)


def test_noise_is_cut_at_three_sigma():
    pixels = noisy()
    flux = above_noise(pixels)
    assert flux.dtype == np.float32
    assert np.mean(flux == 0) > 0.98
    assert flux[flux > 0].min() == pytest.approx(3 * 2e-4, rel=0.05)
    kept = flux > 0
    np.testing.assert_allclose(flux[kept], pixels[kept] - np.median(pixels), rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-6, 1e6), st.floats(-1e3, 1e3))
def test_unit_and_level_do_not_matter(unit, level):
    front_end = Cutout(36, 80)
    expected = front_end.describe(Image(noisy()))
    # A level far above the flux eats its digits.
    changed = (noisy().astype(np.float64) * unit + level * unit * 2e-4).astype(np.float32)
    found = front_end.describe(Image(changed))
    assert np.mean(np.abs(found - expected) > 0.02) < 0.01


def test_missing_pixels_are_background():
    pixels = noisy()
    pixels[:40], pixels[:, 140:] = np.nan, np.nan
    row = Cutout(150, 150).describe(Image(pixels))
    assert np.isfinite(row).all()
    assert row[:40].max() == 0
    assert np.isfinite(above_noise(np.full((20, 20), np.nan, np.float32))).all()


# ---- what it refuses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.ones((1, 1)), "1 x 1 pixels; expected at least 16 a side"),
        (np.ones((15, 200)), "200 x 15 pixels"),
        (np.full((150, 150), 7), "nothing stands out from the noise in its central 80 pixels"),
        (np.pad(np.ones((3, 3)), (0, 147)), "nothing stands out"),
    ],
)
def test_images_without_a_source(pixels, message):
    with pytest.raises(ReadError, match=f"^here.png: {message}"):
        Cutout().describe(Image(pixels.astype(np.float32), "here.png"))


def test_a_square_that_would_fill_the_memory_is_refused():
    thin = Image(np.ones((16, 100_000), np.float32), "thin.png")
    with pytest.raises(ReadError, match=r"^thin.png: its square would have 100000 pixels a side; expected"):
        Cutout(crop=None).describe(thin)
    fine = Image(np.ones((150, 150), np.float32), "fine.fits", header={"CDELT1": 3e-6, "CDELT2": 3e-6})
    with pytest.raises(ReadError, match=r"^fine.fits: its square would have 13333.3 pixels a side"):
        Cutout(crop=80).describe(fine)


@pytest.mark.parametrize(
    "wrong", [{"size": 4}, {"size": 72.0}, {"crop": 2}, {"crop": "all"}, {"stretch": "cube"}, {"size": None}]
)
def test_wrong_settings(wrong):
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        Cutout(**wrong)


@pytest.mark.parametrize("front_end", [Cutout(), Cutout(224, None), Cutout(64, 100, "log")])
def test_settings_come_back(front_end):
    assert FRONT_ENDS["cutout"] == "fasthash.radio.cutout:Cutout"
    again = _front_end(front_end.settings())
    assert isinstance(again, Cutout)
    assert again.settings() == front_end.settings()


def test_resize_stays_within_what_it_was_given():
    pixels = np.random.default_rng(0).random((30, 50), np.float32)
    out = resize(pixels, (7, 90), (3.5, 2.25, 40.5, 29.0))
    assert out.shape == (7, 90)
    assert pixels.min() <= out.min() < out.max() <= pixels.max()


# ---- hostile files, and labels, by the commands --------------------------------------------------------------------


@pytest.fixture(scope="module")
def radio_encoder(tmp_path_factory):
    """An encoder of cut-outs: 16 means of strips, an untrained network of one layer."""
    onnx = pytest.importorskip("onnx", reason="needs the extra [train]")
    from fasthash._training import write_encoder

    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node("ReduceMean", ["x"], ["hashes"], axes=[2], keepdims=0)]
    graph = helper.make_graph(
        nodes, "radio", [helper.make_tensor_value_info("x", real, ["n", 16, 16])],
        [helper.make_tensor_value_info("hashes", real, ["n", 16])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("encoder") / "strips.onnx"
    front_end = Cutout(16, 80)
    write_encoder(path, model, {"name": "strips", "front_end": front_end.settings(), "thresholds": [0.01] * 16})
    return path


@pytest.fixture
def galaxies(tmp_path):
    folder = tmp_path / "galaxies"
    for i, name in enumerate(["train/FRI/a.png", "train/Bent/b.png", "test/FR2/c.png", "unsorted/d.png"]):
        (folder / name).parent.mkdir(parents=True)
        Pillow.fromarray(source(place=(i, -i), width=2 + i)).save(folder / name)
    return folder


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_labels_come_from_folders(tmp_path, capsys, radio_encoder, galaxies, kind):
    given = galaxies
    if kind == "zip":
        given = tmp_path / "galaxies.zip"
        with zipfile.ZipFile(given, "w") as archive:
            for path in sorted(galaxies.rglob("*.png")):
                archive.write(path, path.relative_to(galaxies))
    out = tmp_path / "h.npz"
    assert run(capsys, "encode", given, "--encoder", radio_encoder, "-o", out)[::2] == (0, "")
    with np.load(out, allow_pickle=False) as arrays:
        paths, labels = arrays["paths"].tolist(), arrays["labels"].tolist()
    assert labels == [label_of(path) for path in paths]
    assert sorted(labels) == ["", "Bent", "FRI", "FRII"]

    catalog = tmp_path / "radio.catalog"
    assert run(capsys, "build", given, "--encoder", radio_encoder, "-o", catalog)[::2] == (0, "")
    with fh.Catalog.open(catalog) as opened:
        assert opened.rows().labels.tolist() == labels
        hits = opened.search(paths[0], 9, label="FRII")
        assert [hit.label for hit in hits] == ["FRII"]
    status, text, _ = run(capsys, "search", catalog, paths[0], "-k", 1, "--gallery", tmp_path / "hits.png", "--json")
    assert status == 0
    assert f'"label": "{labels[0]}"' in text
    assert (tmp_path / "hits.png").stat().st_size > 10_000


def hostile():
    frames = [Pillow.new("L", (60, 60), level) for level in (0, 90)]
    moving, good = io.BytesIO(), saved(source(), "JPEG")
    frames[0].save(moving, "PNG", save_all=True, append_images=frames[1:])
    yield "empty.jpg", b"", "empty file"
    yield "one.png", saved(np.full((1, 1), 9, np.uint8), "PNG"), "1 x 1 pixels"
    yield "cut.jpg", good[: len(good) // 2], "damaged|truncated"
    yield "cmyk.jpg", bad_files.picture("JPEG", "CMYK"), "CMYK"
    yield "animated.png", moving.getvalue(), "animation"
    yield "huge.png", bad_files.png(20_000, 20_000, b""), r"20000 x 20000 pixels, over the limit of .*--max-pixels"
    yield "black.png", saved(np.zeros((150, 150), np.uint8), "PNG"), "nothing stands out"
    yield "all-nan.fits", bad_files.pixels(np.full((32, 32), np.nan)), "no valid pixel"


@pytest.mark.parametrize(
    ("name", "data", "message"), list(hostile()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_hostile_images_get_one_line(tmp_path, capsys, radio_encoder, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    status, out, err = run(capsys, "encode", path, "--encoder", radio_encoder, "-o", tmp_path / "h.npz")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: {path}: ")
    with pytest.raises(FastHashError, match=message):
        fh.load_encoder(radio_encoder).encode(path)


# ---- the published sets --------------------------------------------------------------------------------------------


def test_the_two_published_sets_come_out_alike(real_radio):
    """The same source in both: their cut-outs of 150 and 300 pixels agree once they are on one grid."""
    ours, theirs = (find_images(real_radio / name)[0] for name in ("data.zip", "griese.zip"))
    pairs = sky_pairs(*(np.array([position_from_name(path) for path in paths]) for paths in (ours, theirs)), 1.0)
    assert len(pairs) > 100
    front_end = Cutout(80, 80)
    alike = []
    for i, j in pairs[::5]:
        one, two = (front_end.describe(read_image(path)) for path in (ours[i], theirs[j]))
        # Catalogues of positions differ by up to a pixel either way.
        shifted = (np.roll(two, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
        alike.append(max(np.corrcoef(one.ravel(), each.ravel())[0, 1] for each in shifted))
    assert np.median(alike) > 0.96
