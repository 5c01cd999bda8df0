"""Every format reads right. Oracles: what was written, and astropy, Pillow, NumPy and SunPy themselves."""

import gzip
import io
import os
import threading
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor

import bad_files
import numpy as np
import pytest
from astropy.io import fits
from PIL import Image as Pillow
from PIL import features

from fasthash.errors import ArgumentError, ReadError
from fasthash.io import DEFAULT_LIMITS, Image, Limits, as_image, find_images, open_image, read_image

RNG = np.random.default_rng(7)
FIELD = RNG.normal(0, 200, (37, 53))
WHOLE = FIELD.astype(np.int16)
GREY = RNG.integers(0, 256, (37, 53), np.uint8)


@pytest.fixture
def save(tmp_path):
    """Write bytes, HDUs or a picture; give the path."""

    def write(name, content, **settings):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, Pillow.Image):
            content.save(path, **settings)
        else:
            fits.HDUList(content).writeto(path)
        return path

    return write


def assert_pixels(image, expected):
    assert isinstance(image, Image)
    assert image.pixels.dtype == np.float32
    assert image.pixels.dtype.isnative
    assert image.pixels.flags.c_contiguous
    np.testing.assert_array_equal(image.pixels, np.asarray(expected).astype(np.float32))


# ---- FITS ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", "i4", "i8", "u2", "u4", "i1", "f4", ">f4", "f8", ">f8"])
def test_fits_types(dtype, save):
    values = (np.abs(FIELD) if dtype[-2] == "u" else FIELD).clip(-120, 250).astype(dtype)
    path = save("a.fits", [fits.PrimaryHDU(values)])
    assert_pixels(read_image(path), values)
    assert_pixels(read_image(path), fits.getdata(path))


def test_fits_scaling_and_blank(save):
    blank, raw = WHOLE[2, 3], WHOLE.astype(">i2").tobytes()
    data = bad_files.plain(bitpix=16, shape=WHOLE.shape, data=raw, BSCALE="0.25", BZERO="10", BLANK=blank)
    assert_pixels(read_image(save("a.fits", data)), np.where(blank == WHOLE, np.nan, WHOLE * 0.25 + 10))


def test_fits_nan_stays(save):
    values = FIELD.astype(np.float32)
    values[:, :5] = np.nan
    assert_pixels(read_image(save("a.fits", [fits.PrimaryHDU(values)])), values)


def test_fits_without_the_padding_of_its_last_block(save):
    whole = bad_files.plain(data=bad_files.field().astype(">f4").tobytes())
    path = save("a.fits", whole[: bad_files.BLOCK + 32 * 32 * 4])
    assert_pixels(read_image(path), bad_files.field())


@pytest.mark.parametrize("shape", [(1, 37, 53), (1, 1, 37, 53), (37, 1, 53), (37, 53, 1)])
def test_fits_axes_of_length_one(shape, save):
    assert_pixels(read_image(save("a.fits", [fits.PrimaryHDU(WHOLE.reshape(shape))])), WHOLE)


def test_fits_narrow_images(save):
    for shape in ((1, 9), (9, 1), (1, 1)):
        assert read_image(save(f"{shape}.fits", [fits.PrimaryHDU(np.ones(shape, "i2"))])).pixels.shape == shape


def test_the_first_image_of_a_fits_file(save):
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.arange(2000.0))])
    cube, line = fits.ImageHDU(np.zeros((3, 5, 5), "i2")), fits.ImageHDU(np.zeros(7, "i2"))
    text = fits.TableHDU.from_columns([fits.Column("a", "I4", array=np.arange(5))])
    second = fits.ImageHDU(WHOLE.T.copy())
    for name, before in {"e": [], "t": [table], "c": [cube, line], "tt": [text, table]}.items():
        path = save(f"{name}.fits", [fits.PrimaryHDU(), *before, fits.ImageHDU(WHOLE), second])
        assert_pixels(read_image(path), WHOLE)
    path = save("z.fits", [fits.PrimaryHDU(np.zeros(3, "i2")), table, fits.CompImageHDU(WHOLE), second])
    assert_pixels(read_image(path), WHOLE)


@pytest.mark.parametrize("method", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"])
@pytest.mark.parametrize("dtype", ["i2", "i4", "u1", "u2"])
def test_fits_compressed_without_loss(method, dtype, save):
    values = np.abs(WHOLE).clip(0, 250).astype(dtype)
    for name, tile in {"rows": None, "tiles": (16, 16), "whole": values.shape}.items():
        tile = tile or ((16, 53) if method == "HCOMPRESS_1" else None)
        path = save(f"{name}.fits", [fits.PrimaryHDU(), fits.CompImageHDU(values, None, method, tile_shape=tile)])
        assert_pixels(read_image(path), values)


def test_fits_plio(save):
    values = np.abs(WHOLE)
    assert_pixels(read_image(save("a.fits", [fits.PrimaryHDU(), fits.CompImageHDU(values, None, "PLIO_1")])), values)


@pytest.mark.parametrize("method", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"])
@pytest.mark.parametrize("settings", [{}, {"quantize_method": 1}, {"quantize_method": 2, "quantize_level": 4}])
def test_fits_compressed_floats(method, settings, save):
    tile = (16, 53) if method == "HCOMPRESS_1" else None
    values = FIELD.astype(np.float32)
    values[20, 20] = 0
    values[:, :2] = 1.5 if method == "HCOMPRESS_1" else np.nan
    path = save("a.fits", [fits.PrimaryHDU(), fits.CompImageHDU(values, None, method, tile_shape=tile, **settings)])
    assert_pixels(read_image(path), fits.getdata(path))
    np.testing.assert_allclose(read_image(path).pixels, values, atol=200 / settings.get("quantize_level", 16))


def test_fits_compressed_with_scaling_and_blank_as_hmi_has_it(save):
    values = WHOLE.astype(np.int32)
    values[:, :9] = -(2**31)
    hdu = fits.CompImageHDU(values, None, "RICE_1")
    path = save("a.fits", [fits.PrimaryHDU(), hdu])
    with fits.open(path, disable_image_compression=True, mode="update") as hdus:
        hdus[1].header["BSCALE"], hdus[1].header["BZERO"], hdus[1].header["BLANK"] = 0.1, 0.0, -(2**31)
    expected = fits.getdata(path)
    assert np.isnan(expected[:, :9]).all()
    np.testing.assert_allclose(expected[:, 9:], WHOLE[:, 9:] * 0.1, rtol=1e-6)
    assert_pixels(read_image(path), expected)


def test_gzip(save):
    plain = save("a.fits", [fits.PrimaryHDU(WHOLE)]).read_bytes()
    cut = len(plain) // 3
    members = gzip.compress(plain[:cut]) + gzip.compress(b"") + gzip.compress(plain[cut:])
    for name, data in {
        "one": gzip.compress(plain),
        "members": members,
        "padded": members + bytes(1000),
        "stored": gzip.compress(plain, 0),
        "many": gzip.compress(b"") * 5000 + members,  # which took seconds a mebibyte
    }.items():
        assert_pixels(read_image(save(f"{name}.fits.gz", data)), WHOLE)
    large = bad_files.plain(bitpix=8, shape=(2000, 3000), data=bytes(range(250)) * 24_000)
    image = read_image(save("large.fits.gz", gzip.compress(large, 1)))
    assert_pixels(image, np.frombuffer(bytes(range(250)) * 24_000, np.uint8).reshape(2000, 3000))


def test_the_content_tells_the_kind_not_the_name(save):
    fits_bytes = save("a.fits", [fits.PrimaryHDU(WHOLE)]).read_bytes()
    assert_pixels(read_image(save("fits.jpg", fits_bytes)), WHOLE)
    assert_pixels(read_image(save("packed.fits", gzip.compress(fits_bytes))), WHOLE)
    assert_pixels(read_image(save("array.fits", bad_files.npy(FIELD))), FIELD)


def test_fits_header(save):
    primary, hdu = fits.PrimaryHDU(), fits.ImageHDU(WHOLE)
    primary.header["DATE-OBS"] = "2014-01-31T12:00:00"
    primary.header["TELESCOP"] = "one"
    hdu.header["TELESCOP"] = "two"
    hdu.header["comment"] = "none of our business"
    hdu.header["R_SUN"] = 1.5
    image = read_image(save("a.fits", [primary, hdu]))
    assert image.header["TELESCOP"] == "two"
    assert image.header["R_SUN"] == 1.5
    assert image.header["NAXIS"] == 2
    assert "COMMENT" not in image.header
    assert image.time == np.datetime64("2014-01-31T12:00:00")
    assert image.full_scale is None
    assert image.remarks == ()


def test_fits_cards_that_cannot_be_parsed_are_left_out(save):
    data = bad_files.plain(CROTA2="nan", TELESCOP="unquoted text", **{"DATE-OBS": "'2014-01-31'"})
    image = read_image(save("a.fits", data.replace(b"unquoted text", b"unquot\xe9d text")))
    assert image.time == np.datetime64("2014-01-31")
    assert_pixels(image, bad_files.field())


def test_datasum(save):
    path = save("a.fits", b"")
    for hdus in ([fits.PrimaryHDU(FIELD)], [fits.PrimaryHDU(), fits.CompImageHDU(WHOLE)]):
        fits.HDUList(hdus).writeto(path, checksum=True, overwrite=True)
        assert read_image(path).remarks == ()
    fits.HDUList([fits.PrimaryHDU(FIELD)]).writeto(path, checksum=True, overwrite=True)
    path.write_bytes(bad_files.flipped(path.read_bytes(), bad_files.BLOCK + 1003))
    assert "DATASUM" in read_image(path).remarks[0]


# ---- pictures ------------------------------------------------------------------------------------------------------


def test_grey_pictures(save):
    picture = Pillow.fromarray(GREY)
    for name in ("a.png", "a.bmp.png"):
        image = read_image(save(name, picture, format="PNG"))
        assert_pixels(image, GREY)
        assert image.full_scale == 255
    path = save("a.jpg", picture)
    assert_pixels(read_image(path), np.asarray(Pillow.open(path)))
    assert_pixels(read_image(save("bits.png", picture.convert("1"))), np.asarray(picture.convert("1")) * 255)


def test_png_of_16_bits(save):
    deep = RNG.integers(0, 65_536, (9, 11), np.uint16)
    image = read_image(save("a.png", Pillow.fromarray(deep)))
    assert_pixels(image, deep)
    assert image.full_scale == 65_535


def test_colours_become_grey(save):
    picture = Pillow.fromarray(RNG.integers(0, 256, (9, 11, 3), np.uint8))
    assert_pixels(read_image(save("a.png", picture)), np.asarray(picture.convert("L")))
    palette = picture.quantize(16)
    assert_pixels(read_image(save("p.png", palette)), np.asarray(palette.convert("RGB").convert("L")))


def test_what_is_transparent_is_missing(save):
    alpha = np.full(GREY.shape, 255, np.uint8)
    alpha[:3], alpha[3:5] = 0, 100
    expected = np.where(alpha == 0, np.nan, GREY)
    grey_alpha = Pillow.merge("LA", [Pillow.fromarray(GREY), Pillow.fromarray(alpha)])
    assert_pixels(read_image(save("la.png", grey_alpha)), expected)
    assert_pixels(read_image(save("rgba.png", grey_alpha.convert("RGBA"))), expected)
    keyed = read_image(save("key.png", Pillow.fromarray(GREY), transparency=int(GREY[0, 0])))
    assert_pixels(keyed, np.where(GREY[0, 0] == GREY, np.nan, GREY))


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow has no JPEG 2000")
def test_jpeg_2000(save):
    for name in ("a.jp2", "a.j2k"):
        assert_pixels(read_image(save(name, Pillow.fromarray(GREY))), GREY)
    colour = Pillow.fromarray(RNG.integers(0, 256, (19, 21, 3), np.uint8))
    assert_pixels(read_image(save("c.jp2", colour)), np.asarray(colour.convert("L")))
    path = save("lossy.jp2", Pillow.fromarray(GREY), irreversible=True, quality_mode="dB", quality_layers=[40])
    assert_pixels(read_image(path), np.asarray(Pillow.open(path)))
    deep = RNG.integers(0, 65_536, (19, 21), np.uint16)
    image = read_image(save("d.jp2", Pillow.fromarray(deep)))
    assert_pixels(image, deep)
    assert image.full_scale == 65_535


# ---- .npy ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "<i2", ">i2", "<u2", "i4", "<i8", "f2", "<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(dtype, order, tmp_path):
    values = np.asarray(FIELD.clip(0, 120).astype(dtype), order=order)
    np.save(tmp_path / "a.npy", values)
    assert_pixels(read_image(tmp_path / "a.npy"), values)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_versions(version, save):
    path = save("a.npy", bad_files.npy(FIELD, version))
    assert_pixels(read_image(path), np.load(path))
    assert_pixels(read_image(save("b.npy", bad_files.npy(FIELD[np.newaxis, ..., np.newaxis], version))), FIELD)


# ---- arrays and maps -----------------------------------------------------------------------------------------------


def test_arrays():
    for values in (FIELD, FIELD.T, FIELD[::2, ::-1], WHOLE, FIELD.astype(">f4"), FIELD > 0, FIELD.tolist()):
        assert_pixels(as_image(values), values)
    image = as_image(FIELD)
    assert (image.path, image.digest, image.full_scale) == ("", "", None)
    assert np.isnat(image.time)
    assert as_image(image) is image
    masked = np.ma.masked_greater(FIELD, 100)
    assert_pixels(as_image(masked), np.where(FIELD > 100, np.nan, FIELD))


@pytest.mark.parametrize(
    "value",
    [np.zeros(5), np.zeros((2, 3, 4)), np.zeros((3, 4), complex), np.full((3, 4), "x"), np.full((3, 4), None),
     3.0, None, np.zeros((0, 4)), np.full((3, 4), np.nan), np.array([[0, np.inf]]), np.array([[0, 1e300]]),
     np.ma.masked_all((3, 4))],
)  # fmt: skip
def test_arrays_that_are_no_images(value):
    with pytest.raises(ArgumentError, match="image: "):
        as_image(value)


def test_a_sunpy_map_is_its_file(frames):
    sunpy_map = pytest.importorskip("sunpy.map", reason="needs the extra [solar]")
    map_, image = sunpy_map.Map(frames[0]), read_image(frames[0])
    ours = as_image(map_)
    np.testing.assert_array_equal(ours.pixels, image.pixels)
    assert ours.time == image.time
    assert {key: ours.header[key] for key in ("CRPIX1", "CDELT1", "RSUN_OBS", "T_REC")} == {
        key: image.header[key] for key in ("CRPIX1", "CDELT1", "RSUN_OBS", "T_REC")
    }


# ---- what an image knows -------------------------------------------------------------------------------------------


def test_time_from_the_header_else_from_the_name(save):
    data = bad_files.plain(**{"DATE-OBS": "'2014-01-31'"})
    assert read_image(save("x_20111217.fits", data)).time == np.datetime64("2014-01-31")
    assert read_image(save("x_20111217_0600.npy", bad_files.npy(FIELD))).time == np.datetime64("2011-12-17T06:00")
    assert np.isnat(read_image(save("x.npy", bad_files.npy(FIELD))).time)


def test_digest_is_of_the_files_bytes(save):
    one, two = save("a.npy", bad_files.npy(FIELD)), save("b.npy", bad_files.npy(FIELD))
    assert read_image(one).digest == read_image(two).digest
    assert len(read_image(one).digest) == 32
    assert read_image(save("c.npy", bad_files.npy(-FIELD))).digest != read_image(one).digest


def test_paths_of_any_type(save, tmp_path):
    path = save("a.npy", bad_files.npy(FIELD))
    for given in (path, str(path), os.fsencode(path)):
        assert read_image(given).path == str(path)
        assert find_images([given])[0] == [str(path)]
    for wrong in (3, None, 2.5):
        with pytest.raises(ArgumentError, match="expected a path, got"):
            read_image(wrong)
        with pytest.raises(ArgumentError, match="expected a path, got"):
            find_images([wrong])
    for wrong in ("a\0b.npy", b"a\0b.npy", tmp_path / "a\0b.npy", "a.zip/a\0b.npy", "a\0*"):
        for call in (read_image, open_image, lambda path: find_images([path])):
            with pytest.raises(ArgumentError, match=r"^path: no file has a NUL in its name, got '"):
                call(wrong)


# ---- limits --------------------------------------------------------------------------------------------------------


def test_limits(save):
    files = [
        save("a.fits", [fits.PrimaryHDU(WHOLE)]),
        save("z.fits", [fits.PrimaryHDU(), fits.CompImageHDU(WHOLE)]),
        save("a.npy", bad_files.npy(WHOLE)),
        save("a.png", Pillow.fromarray(GREY)),
        save("a.jpg", Pillow.fromarray(GREY)),
        save("a.jp2", Pillow.fromarray(GREY)),
    ]
    for path in files:
        assert read_image(path, Limits(max_pixels=37 * 53)).pixels.shape == (37, 53)
        with pytest.raises(ReadError, match=rf"{path.name}: 53 x 37 pixels, over the limit of 1960"):
            read_image(path, Limits(max_pixels=37 * 53 - 1))
        size = path.stat().st_size
        assert read_image(path, Limits(max_bytes=size)).pixels.shape == (37, 53)
        with pytest.raises(ReadError, match=rf"{path.name}: over the limit of {size - 1} bytes"):
            read_image(path, Limits(max_bytes=size - 1))


def test_the_default_takes_the_largest_image_it_speaks_of():
    side = int(DEFAULT_LIMITS.max_pixels**0.5)
    assert side == 8192
    assert DEFAULT_LIMITS.max_bytes > 8 * side**2 + 10**6


# ---- many inputs ---------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    """a.fits, b.JPG, notes.txt, .hidden.fits, sub/{c.npy, deep/d.fits.gz}, .git/e.fits, pack.zip{x.fits, in/y.png}."""
    for name in ("a.fits", "b.JPG", "notes.txt", ".hidden.fits", "sub/c.npy", "sub/deep/d.fits.gz", ".git/e.fits"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as archive:
        for name in ("x.fits", "in/y.png", "readme.md", "__MACOSX/._x.fits", "in/.z.fits"):
            archive.writestr(name, bad_files.npy(FIELD))
    return tmp_path


def found(tree, *inputs):
    paths, problems = find_images([str(item) for item in inputs])
    return [os.path.relpath(path, tree) for path in paths], problems


def test_folders(tree):
    everything = ["a.fits", "b.JPG", "sub/c.npy", "sub/deep/d.fits.gz"]
    assert found(tree, tree) == (everything, [])
    assert found(tree, tree / "sub", tree / "a.fits") == (["sub/c.npy", "sub/deep/d.fits.gz", "a.fits"], [])
    assert found(tree, tree / ".git") == ([".git/e.fits"], [])  # asked for by name
    assert find_images(tree)[0] == [str(tree / name) for name in everything]
    assert find_images([]) == ([], [])


def test_globs(tree):
    assert found(tree, f"{tree}/*.fits") == (["a.fits"], [])
    assert found(tree, f"{tree}/?.*") == (["a.fits", "b.JPG"], [])
    everything = ["a.fits", "b.JPG", "pack.zip/in/y.png", "pack.zip/x.fits", "sub/c.npy", "sub/deep/d.fits.gz"]
    assert found(tree, f"{tree}/*") == (everything, [])
    paths, problems = found(tree, f"{tree}/**")
    assert (sorted(paths), problems) == (everything, [])
    (tree / "[1].fits").write_bytes(b"x")
    assert found(tree, tree / "[1].fits") == (["[1].fits"], [])


def test_one_bad_part_does_not_spoil_the_rest(tree):
    (tree / "bad.zip").write_bytes(b"no zip")
    (tree / "void").mkdir()
    paths, problems = found(tree, f"{tree}/*")
    assert len(paths) == 6
    assert sorted(line.removeprefix(f"{tree}/").partition(":")[0] for line in problems) == ["bad.zip", "void"]


def test_the_same_file_twice(tree):
    paths, problems = found(tree, tree / "a.fits", tree, f"{tree}/sub/../a.fits")
    assert paths == ["a.fits", "b.JPG", "sub/c.npy", "sub/deep/d.fits.gz"]
    assert problems == [f"{tree}/a.fits: given twice, used once", f"{tree}/sub/../a.fits: given twice, used once"]


def test_zips(tree):
    assert found(tree, tree / "pack.zip") == (["pack.zip/in/y.png", "pack.zip/x.fits"], [])
    assert found(tree, tree / "pack.zip" / "x.fits") == (["pack.zip/x.fits"], [])
    image = read_image(tree / "pack.zip" / "in" / "y.png")
    assert_pixels(image, FIELD)
    assert image.path == str(tree / "pack.zip" / "in" / "y.png")
    assert image.digest == read_image(tree / "pack.zip" / "x.fits").digest
    with pytest.raises(ReadError, match=r"pack.zip/no.fits: no such file in this zip"):
        read_image(tree / "pack.zip" / "no.fits")


def test_a_zip_that_points_outside_stays_inside(tree):
    with zipfile.ZipFile(tree / "sub" / "climb.zip", "w") as archive:
        archive.writestr("../../a.fits", bad_files.npy(FIELD))
        archive.writestr("/a.fits", bad_files.npy(-FIELD))
    paths, problems = find_images([tree / "a.fits", tree / "sub" / "climb.zip"])
    assert (len(paths), problems) == (3, [])
    assert sorted(float(read_image(path).pixels[0, 0]) for path in paths[1:]) == pytest.approx(
        sorted([-FIELD[0, 0], FIELD[0, 0]]), rel=1e-6
    )


def test_a_zip_that_is_replaced_is_read_anew(tree):
    pack = tree / "pack.zip"
    assert read_image(pack / "x.fits").pixels[0, 0] == np.float32(FIELD[0, 0])
    pack.unlink()
    with zipfile.ZipFile(pack, "w") as archive:
        archive.writestr("x.fits", bad_files.npy(np.ones((3, 3))))
    assert_pixels(read_image(pack / "x.fits"), np.ones((3, 3)))


# ---- threads -------------------------------------------------------------------------------------------------------


def test_threads_read_one_zip_and_leave_the_warning_filters_alone(tmp_path):
    with zipfile.ZipFile(tmp_path / "many.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(60):
            file = io.BytesIO()
            fits.HDUList([fits.PrimaryHDU(WHOLE + number)]).writeto(file)
            archive.writestr(f"{number:02d}.fits", file.getvalue())
    paths, _ = find_images([tmp_path / "many.zip"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        before = list(warnings.filters)
        start = threading.Barrier(8)

        def read(share):
            start.wait()
            return [read_image(path).pixels for path in paths[share::8]]

        with ThreadPoolExecutor(8) as pool:
            shares = list(pool.map(read, range(8)))
        assert warnings.filters == before
    for number in range(60):
        np.testing.assert_array_equal(shares[number % 8][number // 8], WHOLE + number)


# ---- real files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "utc", "size"),
    [
        ("hmi.M_720s.20111217_060000_TAI.fits", "2011-12-17T05:59:26", 4096),
        ("hmi.M_720s.20160707_010000_TAI.fits", "2016-07-07T00:59:24", 4096),
        ("mdi.fd_M_96m_lev182.20110401_000000_TAI.data.fits", "2011-03-31T23:59:26", 1024),
        ("mdi-continuum/20091228_0533_mdiigr_256.jpg", "2009-12-28T05:33:00", 256),
    ],
)
def test_real_files(real_solar, name, utc, size):
    image = read_image(real_solar / name)
    assert image.pixels.shape == (size, size)
    assert image.time == np.datetime64(utc)
    assert image.remarks == ()
    if name.endswith(".fits"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = fits.getdata(real_solar / name)
        np.testing.assert_array_equal(image.pixels, expected.astype(np.float32))
        assert 0.5 < np.isfinite(image.pixels).mean() < 0.8  # the disk
    else:
        np.testing.assert_array_equal(image.pixels, np.asarray(Pillow.open(real_solar / name).convert("L")))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "JPEG2000"])
def test_the_limit_of_pixels_is_ours_alone(kind, save, monkeypatch):
    path = save("x." + {"PNG": "png", "JPEG": "jpg", "JPEG2000": "jp2"}[kind], bad_files.picture(kind))
    before = read_image(path).pixels
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 10)
    np.testing.assert_array_equal(read_image(path).pixels, before)
    with pytest.raises(ReadError, match="64 x 64 pixels, over the limit of 100 pixels"):
        read_image(path, Limits(max_pixels=100))


def test_pictures_that_are_not_read_are_named(tmp_path):
    for name in ("a.tif", "b.GIF", "c.txt", "d.png"):
        (tmp_path / name).write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as file:
        file.writestr("in/a.bmp", b"")
    paths, problems = find_images([tmp_path, tmp_path / "z.zip"])
    assert paths == [str(tmp_path / "d.png")]
    assert problems[:2] == [
        f"{tmp_path}: pictures of a format that is not read: 2 (.gif, .tif)",
        f"{tmp_path}/z.zip: pictures of a format that is not read: 1 (.bmp)",
    ]
