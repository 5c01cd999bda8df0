"""fasthash: semantic hashing and retrieval of astronomical images, on hosts with a CPU and nothing else.

An image goes in, a short hash comes out in about the time it takes to read the file, and the most similar images of
an archive follow in microseconds. A public name is imported from its module when it is first used: what a program does
not call costs it nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fasthash._version import __version__

if TYPE_CHECKING:
    from fasthash._training import write_encoder as write_encoder
    from fasthash.catalog import Catalog as Catalog
    from fasthash.codes import binarize as binarize
    from fasthash.codes import binarize_percentile as binarize_percentile
    from fasthash.codes import pack_bits as pack_bits
    from fasthash.codes import unpack_bits as unpack_bits
    from fasthash.descriptor import GridHistogram as GridHistogram
    from fasthash.encoder import Encoder as Encoder
    from fasthash.encoder import load_encoder as load_encoder
    from fasthash.encoder import shipped_encoders as shipped_encoders
    from fasthash.errors import ArgumentError as ArgumentError
    from fasthash.errors import CorruptFileError as CorruptFileError
    from fasthash.errors import EncoderError as EncoderError
    from fasthash.errors import FastHashError as FastHashError
    from fasthash.errors import MissingDependencyError as MissingDependencyError
    from fasthash.errors import ReadError as ReadError
    from fasthash.hamming import count_hamming as count_hamming
    from fasthash.hamming import knn_hamming as knn_hamming
    from fasthash.hamming import pairwise_hamming as pairwise_hamming
    from fasthash.hamming import range_hamming as range_hamming
    from fasthash.hamming import simd_level as simd_level
    from fasthash.hamming_index import HammingIndex as HammingIndex
    from fasthash.index import FlatIndex as FlatIndex
    from fasthash.index import HNSWIndex as HNSWIndex
    from fasthash.io import find_images as find_images
    from fasthash.io import read_image as read_image

# Which names live where; type checkers read the imports above instead.
_NAMES = {
    "_training": ["write_encoder"],
    "catalog": ["Catalog"],
    "codes": ["binarize", "binarize_percentile", "pack_bits", "unpack_bits"],
    "descriptor": ["GridHistogram"],
    "encoder": ["Encoder", "load_encoder", "shipped_encoders"],
    "errors": [
        "ArgumentError",
        "CorruptFileError",
        "EncoderError",
        "FastHashError",
        "MissingDependencyError",
        "ReadError",
    ],
    "hamming": ["count_hamming", "knn_hamming", "pairwise_hamming", "range_hamming", "simd_level"],
    "hamming_index": ["HammingIndex"],
    "index": ["FlatIndex", "HNSWIndex"],
    "io": ["find_images", "read_image"],
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = ["__version__", *sorted(_MODULES)]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _NAMES:
            return importlib.import_module(f"fasthash.{name}")
        if name not in _MODULES:
            raise AttributeError(f"module 'fasthash' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"fasthash.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_MODULES})
