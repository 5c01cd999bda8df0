"""fasthash: semantic hashing and retrieval of astronomical images, on hosts with a CPU and nothing else.

An image goes in, a short hash comes out in about the time it takes to read the file, and the most similar images of
an archive follow in microseconds. Heavy dependencies are imported by the calls that need them, not here.
"""

from fasthash._training import write_encoder
from fasthash._version import __version__
from fasthash.catalog import Catalog
from fasthash.codes import binarize, binarize_percentile, pack_bits, unpack_bits
from fasthash.descriptor import GridHistogram
from fasthash.encoder import Encoder, load_encoder, shipped_encoders
from fasthash.errors import (
    ArgumentError,
    CorruptFileError,
    EncoderError,
    FastHashError,
    MissingDependencyError,
    ReadError,
)
from fasthash.hamming import count_hamming, knn_hamming, pairwise_hamming, range_hamming, simd_level
from fasthash.hamming_index import HammingIndex
from fasthash.index import FlatIndex, HNSWIndex
from fasthash.io import find_images, read_image

__all__ = [
    "ArgumentError",
    "Catalog",
    "CorruptFileError",
    "Encoder",
    "EncoderError",
    "FastHashError",
    "FlatIndex",
    "GridHistogram",
    "HNSWIndex",
    "HammingIndex",
    "MissingDependencyError",
    "ReadError",
    "__version__",
    "binarize",
    "binarize_percentile",
    "count_hamming",
    "find_images",
    "knn_hamming",
    "load_encoder",
    "pack_bits",
    "pairwise_hamming",
    "range_hamming",
    "read_image",
    "shipped_encoders",
    "simd_level",
    "unpack_bits",
    "write_encoder",
]
