"""Encoders: ONNX networks that turn images into hashes. Sole importer of onnxruntime.

An encoder is one file: the network, and in its metadata all that is needed to use it - how an image becomes the
network's input (the front end), the thresholds of its bits, what it was trained on - with a checksum over every byte.

A network that is a chain of fully connected layers is run by kernels of our own (_network.py), any other by
onnxruntime. Both are right to the rounding of float32; of the kernels one hash is the same on every host.
"""

import hashlib
import importlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fasthash._network import dense_network
from fasthash._onnx import Model
from fasthash._parallel import fold_jobs, map_ahead
from fasthash._validation import as_array, as_vectors, check_int, check_threads
from fasthash.codes import binarize, binarize_percentile, binarize_phases
from fasthash.errors import ArgumentError, EncoderError, FastHashError, ReadError
from fasthash.hamming import simd_level
from fasthash.io import DEFAULT_LIMITS, Image, Limits, as_image, open_image

ENCODERS = Path(__file__).parent / "encoders"

# Where the front ends that metadata may name live; a new survey adds a line.
FRONT_ENDS = {
    "cutout": "fasthash.radio.cutout:Cutout",
    "field-map": "fasthash.solar.field_map:FieldMap",
    "magnetogram-histogram": "fasthash.solar.magnetogram:MagnetogramHistogram",
}

METADATA_KEY = "fasthash"
_MAX_DIM = 65536  # as of an index
_MAX_BITS_PER_PHASE = 256
_CHECKSUM = re.compile(rb"fasthash\.sha256=([0-9a-f]{64})")


class FrontEnd(Protocol):
    """What turns an image into one row of a network's input.

    It may also have ``label(path) -> str``, where its survey keeps images in folders named after their class;
    ``timeless``, true where the time of an image does not matter; ``picture(image)``, what galleries show of one; and
    ``cells(row)``, uint8 (rows, cols, values), the row as a grid over the image, from south to north and east to west,
    such that differences of values tell how unlike two cells are, with ``cell_grid``, (rows, cols).
    """

    def describe(self, image: Image, num_threads: int = 1) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Encoded:
    """One encoded file: its image (without pixels), its hash, float32 (d,), and its label ("" where unknown).

    cells: what `Encoder.cells` makes of it; encoder: the fingerprint of the encoder, "" where unknown.
    """

    image: Image
    hash: NDArray[np.float32]
    label: str = ""
    cells: NDArray[np.uint8] | None = None
    encoder: str = ""


@dataclass(frozen=True)
class Failure:
    """One file that could not be encoded, and why, in one line that names it."""

    path: str
    message: str


class Encoder:
    """A trained encoder; get one from :func:`load_encoder`.

    Attributes
    ----------
    name : str
    dim : int
        Length of a hash.
    n_bits : int
        Bits of a code.
    fingerprint : str
        SHA-256 of the encoder's file: hashes of encoders with other fingerprints cannot be compared.
    metadata : dict
        Front end, scaling, projection and thresholds of the bits (or the percentile of each image's values that stands
        in for them, or the offsets and bits of their phases), training data, seed, version, as written at export.
    percentile : float or None
        That percentile.
    """

    def __init__(self, data: bytes, source: str) -> None:
        self.source = source
        self.data = _verified(data, source)
        self.fingerprint = hashlib.sha256(data).hexdigest()
        simd_level()  # where FASTHASH_SIMD is wrong, the file is not
        try:
            model = Model(data)
            self.metadata: dict[str, Any] = json.loads(model.metadata[METADATA_KEY])
            self._network = dense_network(model) or _Session(data)
            self.name: str = self.metadata["name"]
            if not isinstance(self.name, str):
                raise ArgumentError(f"name: expected text, got {self.name!r}")
            self.dim = check_int("dimensions", self._network.dim, 1, _MAX_DIM)
            self._set_bits()
            self.front_end = _front_end(self.metadata["front_end"])
            self.binarize(np.zeros((1, self.dim), np.float32))  # tells whether what the bits are made by makes sense
        except Exception as error:
            raise EncoderError(f"{source}: not a usable encoder: {' '.join(str(error).split())[:200]}") from error

    def _set_bits(self) -> None:
        """How hashes become codes: phases, thresholds of the bits, or a percentile of each image's own values."""
        about = self.metadata
        self.percentile: float | None = about.get("percentile")
        self._bits_per_phase: int | None = about.get("bits_per_phase")
        projection = about.get("projection")
        if self._bits_per_phase is not None:
            self._levels = np.array(about["offsets"], np.float32)
            self.n_bits = len(self._levels) * check_int("bits_per_phase", self._bits_per_phase, 1, _MAX_BITS_PER_PHASE)
        elif self.percentile is None:
            self._levels = np.array(about["thresholds"], np.float32)
            self.n_bits = len(self._levels)
        else:
            self.n_bits = self.dim if projection is None else len(projection)
        self._projection = self._as_projection(projection)

    def _as_projection(self, values: Any) -> NDArray[np.float32] | None:
        rows = self.n_bits // (self._bits_per_phase or 1)
        if values is None and rows == self.dim and self._bits_per_phase is None:
            return None
        projection = np.array(values, np.float32)
        if projection.shape != (rows, self.dim):
            raise EncoderError(f"its projection is {projection.shape}, not {(rows, self.dim)}")
        return projection

    def __repr__(self) -> str:
        return f"<Encoder {self.name}: {self.dim} floats, {self.n_bits} bits, {self.fingerprint[:12]}>"

    def encode(self, images: Any, num_threads: int = -1) -> NDArray[np.float32]:
        """Hash images.

        Parameters
        ----------
        images : one image or a sequence of them
            Arrays (H, W) or (n, H, W), paths, SunPy maps, or :class:`fasthash.io.Image`, in any mix.
        num_threads : int
            Images that are read and described at a time, or of a single image its bands; -1: one for each core.

        Returns
        -------
        hashes : float32 array (n, dim)

        Raises
        ------
        FastHashError
            For the first image that cannot be used; its text names it. Nothing is skipped.
        """
        sources = _as_list(images)

        threads = check_threads(num_threads)

        def describe(i: int) -> NDArray[np.float32]:
            try:
                return self.front_end.describe(as_image(sources[i]), max(1, threads // len(sources)))
            except ArgumentError as error:
                raise ArgumentError(f"images[{i}]: {error}") from error

        with ThreadPoolExecutor(threads) as pool:
            inputs = list(pool.map(describe, range(len(sources))))
        return self.encode_inputs(np.stack(inputs), num_threads) if inputs else np.empty((0, self.dim), np.float32)

    def encode_inputs(
        self,
        inputs: NDArray[np.float32],
        num_threads: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Run the network alone on rows that the front end made: float32 (n, ...) to float32 (n, dim).

        Blocks of rows are shared out among the threads (-1: one for each core); the hashes are the same for any number,
        and for a row alone or among others. Those of a chain of fully connected layers are the same on every host, too.
        Raises ArgumentError for inputs of another dtype or shape, and where a hash is not finite.
        """
        threads, inputs = check_threads(num_threads), as_array("inputs", inputs)
        batch = self._network.batch
        if inputs.ndim == 0 or (len(inputs) <= batch and progress is None):
            return self._network.run(inputs)
        blocks = [inputs[i : i + batch] for i in range(0, len(inputs), batch)] or [inputs]
        hashes: list[NDArray[np.float32]] = []

        def collect(found: NDArray[np.float32]) -> None:
            hashes.append(found)
            if progress is not None:
                progress(min(batch * len(hashes), len(inputs)), len(inputs))

        fold_jobs(self._network.run, blocks, collect, threads)
        return np.concatenate(hashes)

    def encode_files(
        self, paths: Iterable[str], num_threads: int = -1, limits: Limits = DEFAULT_LIMITS
    ) -> Iterator[Encoded | Failure]:
        """Hash many files, in order, with bounded memory; a file that cannot be used is a Failure, not an exception."""
        return map_ahead(lambda path: self.encode_file(path, limits), paths, check_threads(num_threads))

    def encode_file(self, path: str, limits: Limits = DEFAULT_LIMITS) -> Encoded | Failure:
        """Hash one file."""
        try:
            image, row = _describe_file(self.front_end, path, limits)
            vector = self.encode_inputs(row[np.newaxis])[0]
            return Encoded(image, vector, self.label(path), self.cells(row), self.fingerprint)
        except ArgumentError as error:
            return Failure(path, f"{path}: {error}")
        except FastHashError as error:
            return Failure(path, str(error))

    def label(self, path: str) -> str:
        """The label of an image by the folder it lies in; "" where it tells none, or the encoder knows no labels."""
        of: Callable[[str], str] | None = getattr(self.front_end, "label", None)
        return of(path) if of is not None else ""

    def cells(self, row: NDArray[np.float32]) -> NDArray[np.uint8] | None:
        """One row of network input as the cells of a grid, uint8 (rows, cols, values); None where it has none."""
        of: Callable[[NDArray[np.float32]], NDArray[np.uint8]] | None = getattr(self.front_end, "cells", None)
        return of(row) if of is not None else None

    @property
    def cell_grid(self) -> tuple[int, int] | None:
        """Rows and columns of the grid of `cells`; None where there is none."""
        return getattr(self.front_end, "cell_grid", None)

    @property
    def timeless(self) -> bool:
        """Whether the time of an image does not matter."""
        return bool(getattr(self.front_end, "timeless", False))

    def binarize(self, hashes: NDArray[np.float32], percentile: float | None = None) -> NDArray[np.uint8]:
        """Codes, uint8 (n, n_bytes), of hashes, float32 (n, dim), the way the encoder was trained for.

        That is by phases (`fasthash.codes.binarize_phases`), or a bit is set above its own threshold; what is compared
        are the values of the hash, or the encoder's own projection of them where it has one. With a ``percentile``, or
        for an encoder whose metadata have one, there is one threshold per image instead: that percentile of its own
        values (see `fasthash.codes.binarize_percentile`). Raises ArgumentError for a percentile where bits are phases.
        """
        checked = as_vectors("hashes", hashes, self.dim)
        percentile = self.percentile if percentile is None else percentile
        if self._bits_per_phase is not None:
            if percentile is not None:
                raise ArgumentError(f"percentile: the bits of {self.name} are phases, which have no threshold")
            return binarize_phases(checked, self._projection, self._levels, self._bits_per_phase)
        if percentile is None:
            return binarize(checked, self._levels, self._projection)
        return binarize_percentile(checked, percentile, self._projection)


class _Session:
    """A network run by onnxruntime; dim: the length of its outputs; batch: the rows that it takes at a time."""

    batch = 8  # what convolutions pass on stays in the cache: a tenth faster than one at a time, a seventh than 64

    def __init__(self, data: bytes) -> None:
        # Nothing is to leave this host, nor to be left in its users' homes.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # the networks are small: a second thread costs more than it brings
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        (taken,), given = self._session.get_inputs(), self._session.get_outputs()[0]
        if {taken.type, given.type} != {"tensor(float)"}:
            raise ValueError(f"its network makes {given.type} of {taken.type}, not float32 of float32")
        self._input, self._outputs = taken.name, [given.name]
        self._row = tuple(int(size) for size in taken.shape[1:])
        _, self.dim = given.shape

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (n, ...) to float32 (n, dim). Raises ArgumentError, also where an output is not finite."""
        if inputs.dtype != np.float32 or inputs.ndim == 0 or inputs.shape[1:] != self._row:
            wanted = ", ".join(["n", *map(str, self._row)])
            raise ArgumentError(f"inputs: expected float32 ({wanted}), got {inputs.dtype} {inputs.shape}")
        if not len(inputs):  # which onnxruntime refuses
            return np.empty((0, self.dim), np.float32)
        try:
            hashes: NDArray[np.float32] = self._session.run(self._outputs, {self._input: inputs})[0]
        except Exception as error:  # onnxruntime raises anything
            raise EncoderError(f"the network failed: {' '.join(str(error).split())[:200]}") from error
        if hashes.shape != (len(inputs), self.dim):
            raise EncoderError(f"the network makes {hashes.shape} of {inputs.shape}, not {(len(inputs), self.dim)}")
        # A product tells in half a microsecond whether all is finite; only then does it pay to look closer.
        return hashes if math.isfinite(np.vdot(hashes, hashes)) else as_vectors("hashes", hashes, self.dim)


def load_encoder(name_or_path: str | os.PathLike[str]) -> Encoder:
    """Load a shipped encoder by name, or one from an ``.onnx`` file.

    Raises
    ------
    EncoderError
        Where there is no such encoder, or its file is damaged or was not written by fasthash.
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise ArgumentError(f"name_or_path: expected a name or a path, got {name_or_path!r}")
    text = os.fspath(name_or_path)
    shipped = ENCODERS / f"{text}.onnx"
    path = shipped if text in shipped_encoders() else Path(text)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        known = ", ".join(shipped_encoders())
        missing = isinstance(error, FileNotFoundError)
        reason = "no such file" if missing else getattr(error, "strerror", None) or str(error)
        raise EncoderError(f"{text}: {reason}, nor an encoder that comes with fasthash ({known})") from error
    return Encoder(data, text)


def describe_files(
    front_end: FrontEnd, paths: Iterable[str], num_threads: int = -1, limits: Limits = DEFAULT_LIMITS
) -> Iterator[tuple[Image, NDArray[np.float32]] | Failure]:
    """Read and describe many files, in order, on threads, a few ahead of what was taken.

    Yields each image (without its pixels) and its row of network input, or a Failure.
    """

    def describe(path: str) -> tuple[Image, NDArray[np.float32]] | Failure:
        try:
            return _describe_file(front_end, path, limits)
        except FastHashError as error:
            return Failure(path, str(error))

    return map_ahead(describe, paths, check_threads(num_threads))


def _describe_file(front_end: FrontEnd, path: str, limits: Limits) -> tuple[Image, NDArray[np.float32]]:
    try:
        image = open_image(path, limits, digest=True)
        row = front_end.describe(image)  # which decodes the pixels of most files
    except MemoryError as error:
        raise ReadError(f"{path}: not enough memory to decode it") from error
    return replace(image, source=np.empty((0, 0), np.float32)), row


def shipped_encoders() -> list[str]:
    """Names of the encoders that come with the package."""
    return sorted(path.stem for path in ENCODERS.glob("*.onnx"))


def seal(data: bytes) -> bytes:
    """Fill the checksum into a serialised network whose metadata hold ``CHECKSUM_BLANK``."""
    return data.replace(CHECKSUM_BLANK, _digest(data), 1)


CHECKSUM_BLANK = b"fasthash.sha256=" + b"0" * 64


def _digest(blank: bytes) -> bytes:
    return b"fasthash.sha256=" + hashlib.sha256(blank).hexdigest().encode()


def _verified(data: bytes, source: str) -> bytes:
    marks = _CHECKSUM.findall(data)
    if len(marks) != 1:
        raise EncoderError(f"{source}: not a fasthash encoder, or damaged (no checksum in it)")
    mark = b"fasthash.sha256=" + marks[0]
    if _digest(data.replace(mark, CHECKSUM_BLANK)) != mark:
        raise EncoderError(f"{source}: checksum does not match: the file is damaged or was altered")
    return data


def _front_end(settings: dict[str, Any]) -> FrontEnd:
    if settings["kind"] not in FRONT_ENDS:
        raise EncoderError(f"front end {settings['kind']!r} is unknown to this version of fasthash")
    module, _, name = FRONT_ENDS[settings["kind"]].partition(":")
    front_end: FrontEnd = getattr(importlib.import_module(module), name).from_settings(settings)
    return front_end


def _as_list(images: Any) -> list[Any]:
    if isinstance(images, np.ndarray) and images.dtype.kind not in "UO":
        if images.ndim not in (2, 3):
            raise ArgumentError(f"images: expected an array (H, W) or (n, H, W), got {images.shape}")
        return [images] if images.ndim == 2 else list(images)
    # A SunPy map is one image; a sequence of maps has a list of their metadata.
    if isinstance(images, (str, os.PathLike, Image)) or isinstance(getattr(images, "meta", None), Mapping):
        return [images]
    try:
        return list(images)
    except TypeError:
        raise ArgumentError(f"images: expected arrays, paths or maps, got {type(images).__name__}") from None
