"""From files to pixels: FITS, JPEG, PNG, JPEG 2000 and .npy, on their own, in folders, by globs or in zips.

Sole importer of astropy.io.fits and Pillow. A file is untrusted: what its header claims is checked against limits and
against the bytes that are there before a pixel is decoded, and whatever goes wrong is a ReadError that names the file.
"""

import functools
import glob
import io
import math
import os
import re
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fasthash import _fits, _source
from fasthash._bands import Bands, PixelCheck, R, count, decode, fold_bands, open_bands
from fasthash._source import File, Memory, Source
from fasthash._validation import as_path
from fasthash.errors import ArgumentError, ReadError
from fasthash.times import time_from_header, time_from_name

T = TypeVar("T")

_FITS_SUFFIXES = (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz", ".fz")
SUFFIXES = (*_FITS_SUFFIXES, ".jpg", ".jpeg", ".png", ".jp2", ".j2k", ".jpx", ".npy")

_UNREAD = (".tif", ".tiff", ".gif", ".bmp", ".webp")  # pictures too, and missed where nobody says so

_ZIP = ".zip"
_HEAD = 16  # bytes that tell what a file is
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_PIECE = 2**15  # bytes unpacked at a time: those behind a member are copied, and there may be thousands of them
_J2K_START = b"\xff\x4f\xff\x51"
_JPEG_START, _PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Limits:
    """How much a single image may ask for; a header that claims more is refused before anything is allocated.

    max_pixels : pixels of an image. The default, 8192 x 8192, is four times an HMI frame.
    max_bytes : bytes of a file, after decompression of .gz and zip members: 8 for each pixel, and room for headers.
    """

    max_pixels: int = 2**26
    max_bytes: int = 2**29 + 2**24

    def image_shape(self, shape: Iterable[int]) -> tuple[int, int]:
        """Drop axes of length one; refuse what is not a two-dimensional image within the limits."""
        lengths = list(shape)
        while len(lengths) > 2 and 1 in lengths:
            lengths.remove(1)
        if len(lengths) != 2 or min(lengths) < 1:
            raise ReadError(f"expected a two-dimensional image, got shape {tuple(shape)}")
        if math.prod(lengths) > self.max_pixels:
            size = f"{lengths[1]} x {lengths[0]} pixels"
            raise ReadError(f"{size}, over the limit of {self.max_pixels} pixels (--max-pixels)")
        return lengths[0], lengths[1]

    def check_bytes(self, count: int) -> None:
        """Refuse a file, or what it unpacks to, of ``count`` bytes."""
        if count > self.max_bytes:
            raise ReadError(f"over the limit of {self.max_bytes} bytes (8 for each of --max-pixels)")


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Image:
    """One image: its pixels, and what its file says about it.

    source : the pixels, float32 array (H, W), C-contiguous, or the `Bands` of a file that decode them when asked.
    path : where it came from ("" for arrays); a member of a zip is ``archive.zip/member``.
    time : numpy.datetime64[ms] in UTC; NaT where unknown.
    header : FITS header cards or SunPy metadata, keys in upper case.
    full_scale : for integer pictures, the value that stands for white (255 or 65,535); else None: physical units.
    digest : BLAKE2b-128 of the file's bytes, hexadecimal ("" for arrays, and where it was not asked for).
    remarks : what a user should know, though the image is usable.
    """

    source: NDArray[np.float32] | Bands
    path: str = ""
    time: np.datetime64 = field(default_factory=lambda: np.datetime64("NaT", "ms"))
    header: Mapping[str, Any] = field(default_factory=dict)
    full_scale: float | None = None
    digest: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.source.shape
        return height, width

    @functools.cached_property
    def pixels(self) -> NDArray[np.float32]:
        """float32 array (H, W), C-contiguous; NaN where one is missing. FITS rows run up, those of pictures down."""
        return self.source if isinstance(self.source, np.ndarray) else self._naming(decode, self.source)

    def fold_bands(
        self,
        work: Callable[[NDArray[np.float32], int], R],
        add: Callable[[R], object],
        num_threads: int = 1,
    ) -> None:
        """``add(work(rows, first))`` for the rows of the image, some at a time: see `fasthash._bands.fold_bands`.

        The way to a sum over all pixels that makes no whole image of a file.
        """
        self._naming(fold_bands, self.__dict__.get("pixels", self.source), work, add, num_threads)

    def _naming(self, call: Callable[..., T], *arguments: Any) -> T:
        try:
            return call(*arguments)
        except ReadError as error:
            raise ReadError(f"{self.path}: {error}") from error.__cause__


# What a decoder makes of a file's bytes: pixels, header, full_scale, remarks.
_Decoded = tuple[NDArray[np.float32] | Bands, Mapping[str, Any], float | None, tuple[str, ...]]


# ---- which images --------------------------------------------------------------------------------------------------


def find_images(inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> tuple[list[str], list[str]]:
    """Expand files, folders (recursively, hidden files left out), globs and zips into paths of single images.

    Returns
    -------
    paths : list of str
        In the order given, sorted within each folder, glob and zip; every file once.
    problems : list of str
        One line for each input, or part of one, that gave nothing, and for each file that was given twice.
    """
    items = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
    paths: dict[tuple[str, str], str] = {}
    problems: list[str] = []
    for item in items:
        # A glob with ** finds a folder and what is in it: the very same path twice is no news.
        for path in dict.fromkeys(_expand(as_path(item), problems)):
            member = _zip_member(path)
            key = (os.path.realpath(member[0]), member[1]) if member else (os.path.realpath(path), "")
            if key in paths:
                problems.append(f"{path}: given twice, used once")
            else:
                paths[key] = path
    return list(paths.values()), problems


def _expand(item: str, problems: list[str]) -> Iterator[str]:
    if os.path.isdir(item):
        yield from _in_folder(item, problems)
    elif os.path.lexists(item) and item.lower().endswith(_ZIP):
        yield from _in_zip(item, problems)
    elif os.path.lexists(item) or _zip_member(item):
        yield item
    elif glob.has_magic(item):
        matches = sorted(path for path in glob.glob(item, recursive=True) if _is_input(path))
        if not matches:
            problems.append(f"{item}: no image matches")
        for path in matches:
            yield from _expand(path, problems)
    else:
        problems.append(f"{item}: no such file or folder")


def _is_input(path: str) -> bool:
    return os.path.isdir(path) or path.lower().endswith((*SUFFIXES, _ZIP))


def _in_folder(folder: str, problems: list[str]) -> Iterator[str]:
    found, unread = False, []
    before = len(problems)

    def note(error: OSError) -> None:
        problems.append(f"{as_path(error.filename)}: {error.strerror}")

    for parent, folders, names in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if is_image_name(name):
                found = True
                yield os.path.join(parent, name)
            elif name.lower().endswith(_UNREAD):
                unread.append(name)
    _say_unread(folder, unread, problems)
    if not found and len(problems) == before:
        problems.append(f"{folder}: no images in this folder (looked for {', '.join(SUFFIXES)})")


def _say_unread(where: str, names: list[str], problems: list[str]) -> None:
    if names:
        formats = ", ".join(sorted({os.path.splitext(name)[1].lower() for name in names}))
        problems.append(f"{where}: pictures of a format that is not read: {len(names)} ({formats})")


def is_image_name(name: str) -> bool:
    """Whether a file of this name in a folder is taken for an image: by its suffix, and not hidden."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _in_zip(path: str, problems: list[str]) -> Iterator[str]:
    try:
        names = sorted(info.filename for info in _open_zip(path).infolist() if not info.is_dir())
    except ReadError as error:
        problems.append(f"{path}: {error}")
        return
    found = [name for name in names if is_image_name(name.rpartition("/")[2]) and "__MACOSX/" not in name]
    _say_unread(path, [name for name in names if name.lower().endswith(_UNREAD)], problems)
    if not found:
        problems.append(f"{path}: no images in this zip")
    for name in found:
        yield f"{path}/{name}"


def _open_zip(path: str) -> zipfile.ZipFile:
    try:
        if not os.path.isfile(path):
            raise ReadError("not a file")
        about = os.stat(path)
        # The process is part of the key: after a fork both would move one file offset.
        return _opened_zip(path, about.st_ino, about.st_mtime_ns, about.st_size, os.getpid())
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ReadError(f"not a readable zip: {_reason(error)}") from error


@functools.lru_cache(maxsize=4)
def _opened_zip(path: str, *_version: int) -> zipfile.ZipFile:
    """Kept open: the list of a zip's members is read once, not once for each of them."""
    return zipfile.ZipFile(path)


def _zip_member(path: str) -> tuple[str, str] | None:
    """Split ``archive.zip/member`` where such an archive is a file."""
    for match in re.finditer(r"\.zip/", path, re.IGNORECASE):
        if os.path.isfile(path[: match.end() - 1]):
            return path[: match.end() - 1], path[match.end() :]
    return None


# ---- one image -----------------------------------------------------------------------------------------------------


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
    image = open_image(path, limits, digest=True)
    return replace(image, source=image.pixels)


def open_image(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS, digest: bool = False) -> Image:
    """`read_image`, except that pixels of most FITS files are decoded when they are asked for, and errors raised then.

    The digest of the file is taken only where ``digest`` asks for it.
    """
    name = as_path(path)
    try:
        data = _open(name, limits)
        hashed = _source.digest(data) if digest else ""
        if data.read(0, len(_GZIP_MAGIC)) == _GZIP_MAGIC:
            data = Memory(_gunzip(data, limits))
        pixels, header, full_scale, remarks = _decoder(bytes(data.read(0, _HEAD)))(data, limits)
        if isinstance(pixels, np.ndarray):
            _check_pixels(pixels)
    except ReadError as error:
        raise ReadError(f"{name}: {error}") from error.__cause__
    except MemoryError as error:
        raise ReadError(f"{name}: not enough memory to decode it") from error
    except Exception as error:  # decoders of untrusted bytes raise anything
        raise ReadError(f"{name}: damaged or unsupported: {_reason(error)}") from error
    time = time_from_header(header)
    if np.isnat(time):
        time = time_from_name(name)
    return Image(pixels, name, time, header, full_scale, hashed, remarks)


def as_image(source: Any, limits: Limits = DEFAULT_LIMITS) -> Image:
    """An Image of whatever users bring: an Image, a path (see `open_image`), a SunPy map, or a real array (H, W).

    What the mask of a map or of a masked array covers becomes NaN.
    """
    if isinstance(source, Image):
        return source
    if isinstance(source, (str, os.PathLike)):
        return open_image(source, limits)
    if hasattr(source, "meta") and hasattr(source, "data"):  # sunpy.map.GenericMap, without importing SunPy
        header = {str(key).upper(): value for key, value in source.meta.items()}
        pixels = _as_pixels("map", source.data, _mask_of_map(source, header))
        return Image(pixels, time=time_from_header(header), header=header)
    return Image(_as_pixels("image", source, getattr(source, "mask", None)))


def _mask_of_map(source: Any, header: Mapping[str, Any]) -> Any:
    """The map's own mask, and the pixels of value BLANK, which SunPy scales like any other (``ignore_blank``)."""
    mask = source.mask
    if isinstance(header.get("BLANK"), int) and np.issubdtype(source.data.dtype, np.floating):
        real = source.data.dtype.type
        blank = real(header["BLANK"]) * real(header.get("BSCALE") or 1) + real(header.get("BZERO") or 0)
        mask = (source.data == blank) if mask is None else mask | (source.data == blank)
    return mask


def _as_pixels(name: str, values: Any, mask: Any) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" or array.ndim != 2:
        raise ArgumentError(f"{name}: expected a real array (H, W), got {array.dtype} {array.shape}")
    pixels = _float32(array)
    if mask is not None and np.any(mask):
        pixels = np.where(np.asarray(mask, bool), np.float32(np.nan), pixels)
    try:
        _check_pixels(pixels)
    except ReadError as error:
        raise ArgumentError(f"{name}: {error}") from None
    return pixels


def _float32(array: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # a value too large becomes infinite, which _check_pixels refuses
        return np.ascontiguousarray(array, np.float32)


def _check_pixels(pixels: NDArray[np.float32]) -> None:
    check = PixelCheck()
    check.add(count(pixels))
    check.finish()


def _open(name: str, limits: Limits) -> Source:
    member = _zip_member(name)
    data = Memory(_read_member(*member, limits)) if member else _file(name)
    limits.check_bytes(len(data))
    if not len(data):
        raise ReadError("empty file")
    return data


def _file(name: str) -> File:
    if os.path.isdir(name):
        raise ReadError("a folder; expected one image")
    if os.path.exists(name) and not os.path.isfile(name):  # opening a pipe would wait for its writer
        raise ReadError("not a file")
    return File(name)


def _read_member(path: str, name: str, limits: Limits) -> bytes:
    archive = _open_zip(path)
    try:
        info = archive.getinfo(name)
        limits.check_bytes(info.file_size)  # no more than this is ever unpacked
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # LZMA may ask for 4 GiB
            raise ReadError("its compression in the zip is not supported; expected stored or deflated")
        with archive.open(info) as file:
            return b"".join(iter(lambda: file.read(_source.CHUNK), b""))
    except KeyError:
        raise ReadError("no such file in this zip") from None
    except (zipfile.BadZipFile, RuntimeError, zlib.error, EOFError) as error:
        raise ReadError(f"cannot read from this zip: {_reason(error)}") from error


def _gunzip(data: Source, limits: Limits) -> bytes:
    """What a gzip file holds, its members one after another; given up as soon as that can be no image."""
    out = bytearray()
    inflate = zlib.decompressobj(wbits=31)
    for at in range(0, len(data), _GZIP_PIECE):
        chunk = bytes(data.read(at, at + _GZIP_PIECE))
        while chunk:
            if inflate.eof:
                if not chunk.strip(b"\0"):  # padding of tapes
                    break
                inflate = zlib.decompressobj(wbits=31)
            try:
                out += inflate.decompress(chunk, min(limits.max_bytes - len(out) + 1, _source.CHUNK))
            except zlib.error as error:
                raise ReadError(f"damaged gzip: {error}") from error
            limits.check_bytes(len(out))
            if len(out) >= _source.CHUNK:
                _decoder(out)  # zeros for ever are no image
            chunk = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
    if not inflate.eof:
        raise ReadError("gzip stream is cut short")
    return bytes(out)


def resize(
    pixels: NDArray[np.float32], shape: tuple[int, int], box: tuple[float, float, float, float]
) -> NDArray[np.float32]:
    """A part of an image at another size: float32 ``shape``, by antialiased linear interpolation.

    ``pixels``: float32 (H, W), finite. ``box``: left, top, right and bottom edge of the part, in pixels, within the
    image; the first pixel reaches from 0 to 1. Nothing that comes out is beyond what the part holds.
    """
    from PIL import Image as Pillow

    picture = Pillow.fromarray(np.ascontiguousarray(pixels, np.float32))
    return np.array(picture.resize((shape[1], shape[0]), Pillow.Resampling.BILINEAR, box), np.float32)


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """A grey PNG file of an image, uint8 (H, W)."""
    from PIL import Image as Pillow

    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "PNG", optimize=False)
    return file.getvalue()


# ---- decoders: bytes to pixels; what they raise is named after the file by read_image ------------------------------


def _decoder(data: bytes | bytearray) -> Callable[[Source, Limits], _Decoded]:
    if data.startswith(b"SIMPLE  ="):
        return _read_fits
    if data.startswith(b"\x93NUMPY"):
        return _read_npy
    if data.startswith((_JPEG_START, _PNG_START, b"\0\0\0\x0cjP  ", _J2K_START)):
        return _read_picture
    raise ReadError("neither FITS, JPEG, PNG, JPEG 2000 nor .npy")


def _read_npy(source: Source, limits: Limits) -> _Decoded:
    data = source.read(0, len(source))
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version in ((2, 0), (3, 0)):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ReadError(f".npy format version {version[0]}.{version[1]} is unknown")
    if dtype.hasobject:
        raise ReadError("holds pickled objects, which are never loaded")
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise ReadError(f"expected real numbers, got dtype {dtype}")
    height, width = limits.image_shape(shape)
    start, size = file.tell(), height * width * dtype.itemsize
    if len(data) - start < size:
        raise ReadError(f"cut short: its pixels take {size} bytes, {len(data) - start} are there")
    values = np.frombuffer(data, dtype, height * width, start)
    return _float32(values.reshape((height, width), order="F" if fortran else "C")), {}, None, ()


def _read_picture(source: Source, limits: Limits) -> _Decoded:
    data = bytes(source.read(0, len(source)))
    with _QUIET:
        _check_picture(data, limits)
        with _open_picture(data) as picture:
            picture.load()
            if picture.mode.startswith("I"):
                return _float32(np.asarray(picture)), {}, 65_535.0, ()
            transparent = picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info
            rgba = picture.convert("RGBA") if transparent or picture.mode == "P" else None
            grey = _float32(np.asarray((rgba or picture).convert("L")))
            if rgba is not None:
                grey[np.asarray(rgba)[..., 3] == 0] = np.nan
    return grey, {}, 255.0, ()


def _open_picture(data: bytes) -> Any:
    """By the reader of its format: Pillow's own `open` has one limit of pixels for the whole process, besides ours."""
    from PIL import Jpeg2KImagePlugin, JpegImagePlugin, PngImagePlugin

    read: Callable[[io.BytesIO], Any] = Jpeg2KImagePlugin.Jpeg2KImageFile
    if data.startswith(_PNG_START):
        read = PngImagePlugin.PngImageFile
    elif data.startswith(_JPEG_START):
        read = JpegImagePlugin.jpeg_factory
    return read(io.BytesIO(data))


def _check_picture(data: bytes, limits: Limits) -> None:
    """Refuse a picture by its header; a PNG also by the checksums of its chunks, which decoding it skips."""
    with _open_picture(data) as picture:
        limits.image_shape((picture.height, picture.width))
        frames = getattr(picture, "n_frames", 1)
        if frames > 1:
            raise ReadError(f"an animation of {frames} frames, not one image")
        if picture.mode == "CMYK":
            raise ReadError("a CMYK picture; expected grey or RGB")
        if picture.format == "PNG":
            picture.verify()
        start = data.find(_J2K_START) if picture.format == "JPEG2000" else -1
        if start >= 0:  # the codestream's own size is what its decoder goes by: x1, y1, x0, y0, each four bytes
            x1, y1, x0, y0 = (int(value) for value in np.frombuffer(data, ">u4", 4, start + 8))
            limits.image_shape((y1 - y0, x1 - x0))


def _read_fits(source: Source, limits: Limits) -> _Decoded:
    found = _fits.find_image(source, limits)
    return open_bands(found) or _by_astropy(source, found), found.header, None, found.remarks


def _by_astropy(source: Source, found: _fits.Found) -> NDArray[np.float32]:
    from astropy.io import fits

    data = io.BytesIO(source.read(0, len(source)))
    with _QUIET, fits.open(data, memmap=False, lazy_load_hdus=True) as hdus:
        pixels = _float32(hdus[found.index].data)
    if math.prod(found.shape) != pixels.size:
        raise ReadError(f"decoded to shape {pixels.shape}, not {found.shape}")
    return pixels.reshape(found.shape)


class _Quiet:
    """Silence the warnings of decoders, in any number of threads.

    warnings.catch_warnings alone restores, when threads overlap, the filters that another thread had set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(None, None, None)


_QUIET = _Quiet()


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]
