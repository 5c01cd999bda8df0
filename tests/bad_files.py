"""Files that no one can use, made in code: names and bytes. Every one must end in one line that names it."""

import gzip
import io
import struct
import zipfile
import zlib

import numpy as np
from astropy.io import fits
from PIL import Image

BLOCK = 2880
MEGABYTE = 2**20


def field(size=32, seed=0):
    """A magnetogram of sorts, float64."""
    return np.random.default_rng(seed).normal(0, 100, (size, size))


def card(key, value):
    return f"{key:<8}= {value:>20}".ljust(80).encode("latin-1")


def raw_fits(*cards, data=b"", end=True):
    """A FITS file card by card; a value may be anything."""
    header = b"".join(card(*each) for each in cards) + (b"END".ljust(80) if end else b"")
    return header + b" " * (-len(header) % BLOCK if end else 0) + data + b"\0" * (-len(data) % BLOCK)


def plain(bitpix=-32, shape=(32, 32), data=None, **more):
    """A FITS image with cards changed, added, or (where None) left out."""
    cards = {"SIMPLE": "T", "BITPIX": bitpix, "NAXIS": len(shape)}
    cards |= {f"NAXIS{i}": length for i, length in enumerate(shape[::-1], start=1)}
    cards |= more
    if data is None:
        data = field().astype(">f4").tobytes()
    return raw_fits(*((key, value) for key, value in cards.items() if value is not None), data=data)


def pixels(values):
    return plain(data=np.asarray(values, ">f4").tobytes())


def written(*hdus):
    file = io.BytesIO()
    fits.HDUList(list(hdus)).writeto(file)
    return file.getvalue()


def compressed(method="RICE_1", values=None, **settings):
    values = field().astype(np.int16) if values is None else values
    return written(fits.PrimaryHDU(), fits.CompImageHDU(values, compression_type=method, **settings))


def recarded(data, key, value, start=BLOCK):
    """``data`` with the value of one card replaced."""
    at = data.index(f"{key:<8}= ".encode(), start)
    return data[:at] + card(key, value) + data[at + 80 :]


def heap(data, offset, replacement):
    """Compressed ``data`` with bytes of its table (32 descriptors of 8 bytes, then the heap) replaced."""
    at = data.index(b"END".ljust(80), BLOCK) + 80
    at += -at % BLOCK + offset
    return data[:at] + replacement + data[at + len(replacement) :]


def npy(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), version=version)
    return file.getvalue()


def npy_header(descr="'<f4'", shape="(8, 8)", version=1, data=b"\0" * 256):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(header)) + header + data


def picture(kind, mode="L", **settings):
    grey = np.clip(field(64) + 128, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).convert(mode).save(file, kind, **settings)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, data):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bomb(start=b"", size=2048):
    """A gzip file of about a thousandth of the ``size`` MiB that come out of it: ``start``, then zeros."""
    deflate = zlib.compressobj(9, wbits=-15)
    head = deflate.compress(start) + deflate.flush(zlib.Z_FULL_FLUSH)
    block = deflate.compress(bytes(16 * MEGABYTE)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + head + block * (size // 16) + b"\x03\0" + bytes(8)


def zipped(*members, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def flipped(data, at):
    changed = bytearray(data)
    changed[at] ^= 0xFF
    return bytes(changed)


def bad_fits():
    good, rice = pixels(field()), compressed()
    holes = field()
    holes[3, 4] = np.inf
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.arange(5.0))])
    yield "empty.fits", b""
    yield "text.fits", b"not a FITS file\n" * 10
    yield "noise.fits", np.random.default_rng(1).bytes(5000)
    yield "header-cut.fits", good[:1000]
    yield "header-only.fits", good[:BLOCK]
    yield "data-cut.fits", good[: BLOCK + 2000]
    yield "no-end.fits", raw_fits(("SIMPLE", "T"), ("BITPIX", 8), ("NAXIS", 0), end=False) + b" " * 80_000
    yield "simple-f.fits", plain(SIMPLE="F")
    yield "naxis-0.fits", plain(shape=(), data=b"")
    yield "naxis-1.fits", plain(shape=(1024,))
    yield "naxis-3.fits", plain(shape=(4, 16, 16))
    yield "naxis-1000000.fits", plain(NAXIS=1_000_000)
    yield "naxis-negative.fits", plain(NAXIS=-2)
    yield "naxis-text.fits", plain(NAXIS="'two'")
    yield "naxis-fraction.fits", plain(NAXIS="2.5")
    yield "naxis-missing.fits", plain(NAXIS=None)
    yield "naxis1-missing.fits", plain(NAXIS1=None)
    yield "naxis1-negative.fits", plain(NAXIS1=-5)
    yield "naxis1-huge.fits", plain(NAXIS1=2**31)
    yield "naxis1-absurd.fits", plain(NAXIS1=10**30)
    yield "naxis-both-large.fits", plain(shape=(30_000, 30_000))
    yield "size-0.fits", plain(shape=(0, 0), data=b"")
    yield "size-1.fits", plain(shape=(1, 1), data=bytes(4))
    yield "bitpix-7.fits", plain(bitpix=7)
    yield "bitpix-missing.fits", plain(bitpix=None)
    yield "pcount-negative.fits", plain(PCOUNT=-1000)
    yield "gcount-huge.fits", plain(GCOUNT=10**12)
    yield "all-nan.fits", pixels(np.full((32, 32), np.nan))
    yield "one-inf.fits", pixels(holes)
    yield "all-inf.fits", pixels(np.full((32, 32), -np.inf))
    yield "beyond-float32.fits", plain(bitpix=-64, data=np.full((32, 32), 1e300, ">f8").tobytes())
    yield "all-blank.fits", plain(bitpix=16, BLANK=-1, BSCALE="0.5", data=np.full((32, 32), -1, ">i2").tobytes())
    yield "bscale-text.fits", plain(bitpix=16, BSCALE="'much'", data=bytes(2048))
    yield "bscale-nan.fits", plain(bitpix=16, BSCALE="NaN", data=bytes(2048))
    yield "bscale-huge.fits", plain(bitpix=16, BSCALE="1e300", data=b"\1" * 2048)
    yield "bzero-huge.fits", plain(bitpix=16, BZERO="1e300", data=b"\1" * 2048)
    yield "table.fits", written(fits.PrimaryHDU(), table)
    yield "tfields-huge.fits", recarded(written(fits.PrimaryHDU(), table), "TFIELDS", 10**13)
    yield "cube-then-table.fits", written(fits.PrimaryHDU(np.zeros((3, 8, 8), np.int16)), table)
    yield "no-pixel-in-range.fits", pixels(np.full((32, 32), 1e6))
    yield "disk-elsewhere.fits", plain(CRPIX1=9999, CRPIX2=9999, CDELT1=1, RSUN_OBS=5)

    yield "rice-corrupt.fits", heap(rice, 256, b"\xff" * 400)
    yield "rice-cut.fits", rice[: rice.index(b"END".ljust(80), BLOCK) + 1000]
    yield "rice-header-cut.fits", rice[: BLOCK + 500]
    yield "rice-heap-cut.fits", recarded(rice, "PCOUNT", 100)
    yield "rice-beyond-heap.fits", heap(rice, 0, struct.pack(">ii", 40, 2**31 - 100))
    yield "rice-negative-descriptor.fits", heap(rice, 0, struct.pack(">ii", -4, -4))
    yield "rice-huge-image.fits", recarded(recarded(rice, "ZNAXIS1", 100_000), "ZNAXIS2", 50_000)
    yield "rice-huge-row.fits", recarded(rice, "ZNAXIS1", 2**31)
    yield "rice-more-rows.fits", recarded(rice, "ZNAXIS2", 4000)
    yield "rice-tile-0.fits", recarded(rice, "ZTILE1", 0)
    yield "rice-tile-huge.fits", recarded(rice, "ZTILE2", 2**40)
    yield "rice-negative.fits", recarded(rice, "ZNAXIS1", -32)
    yield "rice-zbitpix.fits", recarded(rice, "ZBITPIX", 12)
    yield "rice-no-method.fits", recarded(rice, "ZCMPTYPE", "'MAGIC'")
    yield "rice-blocksize.fits", recarded(rice, "ZVAL1", 0)
    yield "rice-bytepix.fits", recarded(rice, "ZVAL2", 2**31 - 1)
    yield "rice-bytepix-by-another-name.fits", recarded(recarded(rice, "ZVAL2", 2**31 - 1), "ZNAME2", "'BytePix'")
    yield "rice-tfields.fits", recarded(rice, "TFIELDS", 10**13)
    yield "rice-tform.fits", recarded(rice, "TFORM1", "'1D'")
    yield "rice-3d.fits", compressed(values=np.zeros((3, 16, 16), np.int16))
    yield (
        "hcompress-size.fits",
        heap(compressed("HCOMPRESS_1", values=field().astype(np.int32)), 16 + 4, struct.pack(">i", 500_000)),
    )
    tile_bomb = gzip.compress(bytes(64 * MEGABYTE))
    stored = compressed("GZIP_1", values=np.random.default_rng(2).integers(-999, 999, (512, 512), np.int16))
    stored = heap(stored, 0, struct.pack(">ii", len(tile_bomb), 0))
    yield "gzip-tile-bomb.fits", heap(stored, 512 * 8, tile_bomb)


def bad_gzip():
    good = gzip.compress(pixels(field()))
    yield "cut.fits.gz", good[: len(good) // 2]
    yield "crc.fits.gz", flipped(good, -6)
    yield "corrupt.fits.gz", flipped(good, len(good) // 2)
    yield "text.fits.gz", gzip.compress(b"only text\n" * 100)
    yield "empty.fits.gz", gzip.compress(b"")
    yield "tail.fits.gz", good + b"something else"
    yield "bomb.fits.gz", bomb()
    yield "fits-bomb.fits.gz", bomb(pixels(field()))
    yield "many-members.fits.gz", gzip.compress(bytes(16 * MEGABYTE)) * 128
    yield "twice.fits.gz", gzip.compress(good)


def bad_npy():
    yield "pickled.npy", npy(np.array([{"a": 1}, None], object))
    yield "pickle.npy", b"\x80\x05N."  # what pickling None gives
    yield "cut.npy", npy(field())[:1000]
    yield "header-cut.npy", npy(field())[:40]
    yield "cube.npy", npy(np.zeros((4, 8, 8), np.float32))
    yield "complex.npy", npy(field().astype(np.complex64))
    yield "structured.npy", npy(np.zeros((8, 8), [("a", "f4"), ("b", "i2")]))
    yield "string.npy", npy(np.full((8, 8), "x"))
    yield "dates.npy", npy(np.zeros((8, 8), "datetime64[s]"))
    yield "scalar.npy", npy(np.float32(3))
    yield "line.npy", npy(np.zeros(64, np.float32))
    yield "nothing.npy", npy(np.zeros((0, 8), np.float32))
    yield "all-nan.npy", npy(np.full((8, 8), np.nan))
    yield "one-inf.npy", npy(np.where(np.eye(8) > 0, np.inf, 0))
    yield "huge.npy", npy_header(shape="(1000000, 1000000)")
    yield "overflow.npy", npy_header(shape="(4294967296, 4294967296)")
    yield "negative.npy", npy_header(shape="(-8, -8)")
    yield "version-9.npy", npy_header(version=9)
    yield "object.npy", npy_header(descr="'|O'")
    yield "no-dtype.npy", npy_header(descr="'<q9'")
    yield "code.npy", npy_header(descr="__import__('os')")
    yield "shape-text.npy", npy_header(shape="'8'")


def bad_pictures():
    jpeg, good, jp2 = picture("JPEG"), picture("PNG"), picture("JPEG2000")
    frames = [Image.new("L", (16, 16), level) for level in (0, 100, 200)]
    moving = io.BytesIO()
    frames[0].save(moving, "PNG", save_all=True, append_images=frames[1:])
    yield "empty.jpg", b""
    yield "cut.jpg", jpeg[: len(jpeg) // 2]
    yield "header.jpg", jpeg[:30]
    yield "cmyk.jpg", picture("JPEG", "CMYK")
    yield "gif.jpg", picture("GIF")
    yield "tiff.jpg", picture("TIFF")
    yield "pdf.jpg", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(100)
    yield "cut.png", good[: len(good) // 2]
    yield "crc.png", flipped(good, good.index(b"IDAT") + 4 + struct.unpack(">I", good[33:37])[0])
    yield "no-data.png", png(64, 64, zlib.compress(b""))
    yield "bomb.png", png(60_000, 60_000, zlib.compress(bytes(1000)))
    yield "huge.png", png(2**31 - 1, 2**31 - 1, b"")
    yield "animated.png", moving.getvalue()
    yield "transparent.png", _transparent()
    yield "cut.jp2", jp2[: len(jp2) // 3]
    yield "header.jp2", jp2[:60]
    at = jp2.index(b"\xff\x4f\xff\x51") + 8
    yield "huge.jp2", jp2[:at] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + jp2[at + 8 :]
    yield "huge.j2k", jp2[at - 8 : at] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + jp2[at + 8 :]


def _transparent():
    file = io.BytesIO()
    Image.new("RGBA", (16, 16), (9, 9, 9, 0)).save(file, "PNG")
    return file.getvalue()


def bad_zips():
    good = pixels(field())
    stored = zipped(("a.fits", good), method=zipfile.ZIP_STORED)
    yield "empty.zip", b""
    yield "text.zip", b"no zip at all\n" * 10
    yield "cut.zip", stored[: len(stored) // 2]
    yield "no-images.zip", zipped(("readme.txt", b"nothing here"))
    yield "no-members.zip", zipped()
    yield "zip-in-zip.zip", zipped(("inner.zip", stored))
    yield "corrupt-member.zip", flipped(stored, 2000)
    yield "encrypted.zip", _encrypted(stored)
    yield "bomb-member.zip", zipped(("a.fits", bytes(600 * MEGABYTE)))
    yield "lzma-member.zip", zipped(("a.fits", good), method=zipfile.ZIP_LZMA)
    yield "bad-member.zip", zipped(("../../a.fits", b"not FITS"))


def _encrypted(data):
    """The bit of the general-purpose flags that says so, in the local and in the central header."""
    changed = bytearray(data)
    changed[6] |= 1
    changed[data.index(b"PK\1\2") + 8] |= 1
    return bytes(changed)


def all_bad():
    """Name to bytes."""
    made = {}
    for kinds in (bad_fits(), bad_gzip(), bad_npy(), bad_pictures(), bad_zips()):
        for name, data in kinds:
            assert name not in made
            made[name] = data
    return made
