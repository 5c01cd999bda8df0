"""From files to pixels: FITS, JPEG, PNG, JPEG 2000 and .npy, on their own, in folders, by globs or in zips.

Sole importer of astropy.io.fits and Pillow. A file is untrusted: what its header claims is checked against limits and
against the bytes that are there before a pixel is decoded, and whatever goes wrong is a ReadError that names the file.
"""

import glob
import hashlib
import io
import math
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fasthash.errors import ArgumentError, ReadError
from fasthash.times import time_from_header, time_from_name

_FITS_SUFFIXES = (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz", ".fz")
SUFFIXES = (*_FITS_SUFFIXES, ".jpg", ".jpeg", ".png", ".jp2", ".j2k", ".jpx", ".npy")

_FITS_BLOCK = 2880
_ZIP = ".zip"


@dataclass(frozen=True)
class Limits:
    """How much a single image may ask for; a header that claims more is refused before anything is allocated.

    max_pixels : pixels of an image. The default, 8192 x 8192, is four times an HMI frame.
    max_bytes : bytes of a file, after decompression of .gz and zip members.
    """

    max_pixels: int = 2**26
    max_bytes: int = 2**29


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Image:
    """One image: what was read, and what its file says about it.

    pixels : float32 array (H, W), C-contiguous; NaN where a pixel is missing. FITS rows run up, those of pictures down.
    path : where it came from ("" for arrays); a member of a zip is ``archive.zip/member``.
    time : numpy.datetime64[ms] in UTC; NaT where unknown.
    header : FITS header cards or SunPy metadata, keys in upper case.
    full_scale : for integer pictures, the value that stands for white (255 or 65,535); else None: physical units.
    digest : BLAKE2b-128 of the file's bytes, hexadecimal ("" for arrays).
    remarks : what a user should know, though the image is usable.
    """

    pixels: NDArray[np.float32]
    path: str = ""
    time: np.datetime64 = field(default_factory=lambda: np.datetime64("NaT", "ms"))
    header: Mapping[str, Any] = field(default_factory=dict)
    full_scale: float | None = None
    digest: str = ""
    remarks: tuple[str, ...] = ()


def find_images(inputs: Iterable[str | os.PathLike[str]]) -> tuple[list[str], list[str]]:
    """Expand files, folders (recursively), globs and zips into paths of single images.

    Returns
    -------
    paths : list of str
        In the order given, sorted within each folder, glob and zip; every file once.
    problems : list of str
        One line for each input that gave nothing, and for each file that was given twice.
    """
    paths: dict[str, str] = {}
    problems: list[str] = []
    for item in inputs:
        try:
            found = _expand(os.fspath(item))
        except ReadError as error:
            problems.append(str(error))
            continue
        for path in found:
            key = os.path.realpath(path)
            if key in paths:
                problems.append(f"{path}: given twice, used once")
            else:
                paths[key] = path
    return list(paths.values()), problems


def _expand(item: str) -> list[str]:
    if os.path.isdir(item):
        return _in_folder(item)
    if os.path.lexists(item) or _zip_member(item):
        return _in_zip(item) if item.lower().endswith(_ZIP) else [item]
    if glob.has_magic(item):
        matches = sorted(glob.glob(item, recursive=True))
        found = [path for match in matches if _is_input(match) for path in _expand(match)]
        return found or _fail(item, "no image matches")
    return _fail(item, "no such file or folder")


def _is_input(path: str) -> bool:
    return os.path.isdir(path) or path.lower().endswith((*SUFFIXES, _ZIP))


def _in_folder(folder: str) -> list[str]:
    found = []
    for parent, folders, names in os.walk(folder, onerror=lambda error: _fail(folder, error.strerror or str(error))):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [os.path.join(parent, name) for name in sorted(names) if _is_image_name(name)]
    return found or _fail(folder, f"no images in this folder (looked for {', '.join(SUFFIXES)})")


def _is_image_name(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _in_zip(path: str) -> list[str]:
    with _open_zip(path) as archive:
        names = sorted(info.filename for info in archive.infolist() if not info.is_dir())
    found = [f"{path}/{name}" for name in names if _is_image_name(name.rpartition("/")[2]) and "__MACOSX/" not in name]
    return found or _fail(path, "no images in this zip")


def _open_zip(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        _fail(path, f"not a readable zip: {_reason(error)}")


def _zip_member(path: str) -> tuple[str, str] | None:
    """Split ``archive.zip/member`` where such an archive is a file."""
    for match in re.finditer(r"\.zip/", path, re.IGNORECASE):
        if os.path.isfile(path[: match.end() - 1]):
            return path[: match.end() - 1], path[match.end() :]
    return None


def read_image(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> Image:
    """Read one image file, or one member of a zip (``archive.zip/member``).

    The kind is told by the content, not by the name. A FITS file gives its first two-dimensional image, scaled, with
    BLANK pixels as NaN. The time comes from the header (T_REC and T_OBS, which are TAI, else DATE-OBS), else from a
    date in the file's name.

    Raises
    ------
    ReadError
        Where the file cannot be read, is damaged, is over the limits, or holds no single real image.
    """
    name = os.fspath(path)
    data = _read_bytes(name, limits)
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    if data[:2] == b"\x1f\x8b":
        data = _gunzip(name, data, limits)
    try:
        pixels, header, full_scale, remarks = _decoder(name, data)(name, data, limits)
    except ReadError:
        raise
    except MemoryError:
        _fail(name, "not enough memory to decode it")
    except Exception as error:  # decoders of untrusted bytes raise anything
        _fail(name, f"damaged or unsupported: {_reason(error)}")
    _check_pixels(name, pixels)
    time = time_from_header(header)
    if np.isnat(time):
        time = time_from_name(name)
    return Image(pixels, name, time, header, full_scale, digest, remarks)


def as_image(source: Any, limits: Limits = DEFAULT_LIMITS) -> Image:
    """An Image of whatever users bring: an Image, a path, a SunPy map, or a real array (H, W)."""
    if isinstance(source, Image):
        return source
    if isinstance(source, (str, os.PathLike)):
        return read_image(source, limits)
    if hasattr(source, "meta") and hasattr(source, "data"):  # sunpy.map.GenericMap, without importing SunPy
        header = {str(key).upper(): value for key, value in source.meta.items()}
        pixels = _as_pixels("map", np.asarray(source.data))
        mask = getattr(source, "mask", None)
        if mask is not None:
            pixels = np.where(np.asarray(mask, bool), np.float32(np.nan), pixels)
        return Image(pixels, time=time_from_header(header), header=header)
    return Image(_as_pixels("image", np.asarray(source)))


def _as_pixels(name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype.kind not in "fiub" or array.ndim != 2:
        raise ArgumentError(f"{name}: expected a real array (H, W), got {array.dtype} {array.shape}")
    pixels = _float32(array)
    _check_pixels(name, pixels)
    return pixels


def _float32(array: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # a value too large becomes infinite, which _check_pixels refuses
        return np.ascontiguousarray(array, np.float32)


def _check_pixels(name: str, pixels: NDArray[Any]) -> None:
    # One sum finds out whether all is finite; only then does it pay to look closer.
    if pixels.size and np.isfinite(pixels.sum(dtype=np.float64)):
        return
    if np.isinf(pixels).any():
        _fail(name, f"{int(np.isinf(pixels).sum())} infinite pixels (missing ones should be NaN or BLANK)")
    if not np.isfinite(pixels).any():
        _fail(name, "no valid pixel in it")


def _read_bytes(name: str, limits: Limits) -> bytes:
    member = _zip_member(name)
    try:
        if member and not os.path.exists(name):
            with _open_zip(member[0]) as archive, archive.open(member[1]) as file:
                data = file.read(limits.max_bytes + 1)
        else:
            if os.path.exists(name) and not os.path.isfile(name):
                _fail(name, "not a file")
            with Path(name).open("rb") as file:
                if os.fstat(file.fileno()).st_size > limits.max_bytes:
                    _fail_bytes(name, limits)
                data = file.read()
    except (OSError, zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError, zlib.error, EOFError) as error:
        _fail(name, f"cannot read: {_reason(error)}")
    if len(data) > limits.max_bytes:
        _fail_bytes(name, limits)
    return data or _fail(name, "empty file")


def _gunzip(name: str, data: bytes, limits: Limits) -> bytes:
    inflate = zlib.decompressobj(wbits=31)
    try:
        out = inflate.decompress(data, limits.max_bytes + 1)
    except zlib.error as error:
        _fail(name, f"damaged gzip: {error}")
    if len(out) > limits.max_bytes:
        _fail_bytes(name, limits)
    if not inflate.eof:
        _fail(name, "gzip stream is cut short")
    return out


def _decoder(name: str, data: bytes) -> Any:
    if data.startswith(b"SIMPLE  ="):
        return _read_fits
    if data.startswith(b"\x93NUMPY"):
        return _read_npy
    pictures = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
    if data.startswith(pictures):
        return _read_picture
    _fail(name, "neither FITS, JPEG, PNG, JPEG 2000 nor .npy")


def _read_npy(name: str, data: bytes, limits: Limits) -> tuple[Any, ...]:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    if dtype.hasobject:
        _fail(name, "holds pickled objects, which are never loaded")
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        _fail(name, f"expected real numbers, got dtype {dtype}")
    shape = _image_shape(name, shape, limits)
    values = _float32(np.frombuffer(data, dtype, offset=file.tell()))
    if values.size != math.prod(shape):
        _fail(name, f"its header says {math.prod(shape)} pixels, the file has {values.size}")
    return values.reshape(shape, order="F" if fortran else "C"), {}, None, ()


def _read_picture(name: str, data: bytes, limits: Limits) -> tuple[Any, ...]:
    from PIL import Image as Pillow

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Pillow.open(io.BytesIO(data), formats=("JPEG", "PNG", "JPEG2000")) as picture:
            _image_shape(name, (picture.height, picture.width), limits)
            frames = getattr(picture, "n_frames", 1)
            if frames > 1:
                _fail(name, f"an animation of {frames} frames, not one image")
            if picture.mode == "CMYK":
                _fail(name, "a CMYK picture; expected grey or RGB")
            picture.load()
            if picture.mode.startswith("I"):
                return _float32(np.asarray(picture)), {}, 65_535.0, ()
            rgba = picture.convert("RGBA") if picture.mode in ("LA", "PA", "RGBA", "P") else None
            grey = _float32(np.asarray((rgba or picture).convert("L")))
            if rgba is not None:
                grey[np.asarray(rgba)[..., 3] == 0] = np.nan
    return grey, {}, 255.0, ()


def _read_fits(name: str, data: bytes, limits: Limits) -> tuple[Any, ...]:
    from astropy.io import fits

    index, remarks = _find_fits_image(name, data, limits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(io.BytesIO(data), memmap=False, lazy_load_hdus=True) as hdus:
            hdu = hdus[index]
            header = {key: value for key, value in hdu.header.items() if key and key not in ("COMMENT", "HISTORY")}
            pixels = _float32(hdu.data)
    return pixels.reshape(_image_shape(name, pixels.shape, limits)), header, None, remarks


def _find_fits_image(name: str, data: bytes, limits: Limits) -> tuple[int, tuple[str, ...]]:
    """The index of the first HDU with a two-dimensional image, once its bytes are known to be there and few enough."""
    other = ""
    start, index = 0, 0
    while start < len(data) and (start == 0 or data[start : start + 8] == b"XTENSION"):
        cards, body = _fits_cards(name, data, start)
        zimage = cards.get("ZIMAGE") == "T"
        shape = _fits_shape(name, cards, "Z" if zimage else "")
        size = _fits_data_bytes(name, cards)
        kind = cards.get("XTENSION", "IMAGE")
        if shape and (zimage or kind == "IMAGE"):
            if len([length for length in shape if length != 1]) <= 2:
                _image_shape(name, shape, limits)
                _check_tiles(name, cards, zimage, limits)
                if body + size > len(data):
                    _fail(name, f"cut short: HDU {index} needs {body + size} bytes, the file has {len(data)}")
                return index, _check_datasum(cards, data[body : body + size])
            other = other or f"; HDU {index} has shape {tuple(shape)}"
        start = body + size + (-size % _FITS_BLOCK)
        index += 1
    _fail(name, f"no two-dimensional image in this FITS file{other}")


def _fits_cards(name: str, data: bytes, start: int) -> tuple[dict[str, str], int]:
    """The value cards of the header at ``start`` as text, and where its data begin."""
    cards: dict[str, str] = {}
    for offset in range(start, len(data) - 79, 80):
        card = data[offset : offset + 80]
        if card[:8] == b"END     ":
            body = offset + 80
            return cards, body + (-body % _FITS_BLOCK)
        if card[8:10] == b"= ":
            value = card[10:].decode("latin-1")
            text = re.match(r"\s*'([^']*)'", value)
            cards.setdefault(card[:8].decode("latin-1").strip(), (text[1] if text else value.partition("/")[0]).strip())
    _fail(name, "FITS header without END: cut short or damaged")


def _fits_int(name: str, cards: Mapping[str, str], key: str, default: int | None = None) -> int:
    text = cards.get(key, "" if default is None else str(default))
    try:
        return int(text)
    except ValueError:
        _fail(name, f"FITS card {key} is {text!r}, not an integer" if text else f"FITS card {key} is missing")


def _fits_shape(name: str, cards: Mapping[str, str], prefix: str) -> tuple[int, ...]:
    naxis = _fits_int(name, cards, f"{prefix}NAXIS")
    if not 0 <= naxis <= 999:
        _fail(name, f"FITS card {prefix}NAXIS is {naxis}")
    shape = tuple(_fits_int(name, cards, f"{prefix}NAXIS{axis}") for axis in range(naxis, 0, -1))
    if any(length < 0 for length in shape):
        _fail(name, f"negative length in FITS shape {shape}")
    bitpix = _fits_int(name, cards, f"{prefix}BITPIX")
    if bitpix not in (8, 16, 32, 64, -32, -64):
        _fail(name, f"FITS card {prefix}BITPIX is {bitpix}")
    return () if 0 in shape else shape


def _fits_data_bytes(name: str, cards: Mapping[str, str]) -> int:
    shape = _fits_shape(name, cards, "")
    pixels = math.prod(shape) if shape else 0
    extra, groups = _fits_int(name, cards, "PCOUNT", 0), _fits_int(name, cards, "GCOUNT", 1)
    if extra < 0 or groups < 0:
        _fail(name, "negative PCOUNT or GCOUNT in FITS header")
    return abs(_fits_int(name, cards, "BITPIX")) // 8 * groups * (extra + pixels)


def _check_tiles(name: str, cards: Mapping[str, str], zimage: bool, limits: Limits) -> None:
    if not zimage:
        return
    tile = [
        _fits_int(name, cards, f"ZTILE{axis}", 1 if axis > 1 else _fits_int(name, cards, "ZNAXIS1"))
        for axis in range(1, _fits_int(name, cards, "ZNAXIS") + 1)
    ]
    if min(tile) < 1 or math.prod(tile) > limits.max_pixels:
        _fail(name, f"impossible compression tile {tuple(tile)}")


def _check_datasum(cards: Mapping[str, str], body: bytes) -> tuple[str, ...]:
    """Compare DATASUM (FITS standard 4.0, appendix J) with the data; headers copied to other data make it a remark."""
    wanted = cards.get("DATASUM", "")
    if not wanted.isdigit():
        return ()
    body += b"\0" * (-len(body) % _FITS_BLOCK)
    total = int(np.frombuffer(body, ">u4").sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return () if total == int(wanted) else ("DATASUM does not match the data: altered or damaged",)


def _image_shape(name: str, shape: Iterable[int], limits: Limits) -> tuple[int, int]:
    """Drop axes of length one; refuse what is not a two-dimensional image within the limits."""
    lengths = list(shape)
    while len(lengths) > 2 and 1 in lengths:
        lengths.remove(1)
    if len(lengths) != 2 or 0 in lengths:
        _fail(name, f"expected a two-dimensional image, got shape {tuple(shape)}")
    if math.prod(lengths) > limits.max_pixels:
        _fail(name, f"{lengths[1]} x {lengths[0]} pixels, over the limit of {limits.max_pixels} (--max-pixels)")
    return lengths[0], lengths[1]


def _fail_bytes(name: str, limits: Limits) -> NoReturn:
    _fail(name, f"over the limit of {limits.max_bytes} bytes")


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]


def _fail(name: str, reason: str) -> NoReturn:
    raise ReadError(f"{name}: {reason}")
