"""What every training shares: its optional dependencies, reproducible torch, and the file it ends in."""

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._storage import atomic_write
from fasthash._version import __version__
from fasthash.encoder import CHECKSUM_BLANK, METADATA_KEY, Encoder, seal
from fasthash.errors import ArgumentError, CorruptFileError, MissingDependencyError


def import_torch() -> Any:
    """The module torch, or MissingDependencyError."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError("training needs torch: install fasthash with its extra [train]") from error
    return torch


def import_onnx() -> Any:
    """The module onnx, or MissingDependencyError."""
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError("training needs onnx: install fasthash with its extra [train]") from error
    return onnx


def check_installed() -> None:
    """Raise MissingDependencyError now rather than after hours of reading."""
    import_torch()
    import_onnx()


@contextlib.contextmanager
def reproducible(torch: Any, seed: int, num_threads: int = 1) -> Iterator[None]:
    """Seeded random numbers and so many threads (the order of sums depends on it); the caller's state comes back."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        torch.set_num_threads(num_threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def data_digest(*arrays: NDArray[Any]) -> str:
    """What tells the data of one training from another's: BLAKE2b-128 of all bytes, hexadecimal."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def save_checkpoint(path: str | os.PathLike[str], settings: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Write all that a training needs to go on; it appears whole or not at all."""
    with atomic_write(path) as file:
        import_torch().save({**parts, "settings": dict(settings)}, file)


def load_checkpoint(path: str | os.PathLike[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that were saved.

    Raises ArgumentError where they are of a training with other settings, CorruptFileError where they are damaged.
    """
    try:
        parts: dict[str, Any] = import_torch().load(path, map_location="cpu", weights_only=True)
        theirs = dict(parts["settings"])
    except Exception as error:  # torch raises anything
        reason = " ".join(str(error).split())[:200]
        raise CorruptFileError(f"checkpoint {path}: damaged, remove it: {reason}") from error
    if theirs != dict(settings):
        both = (" ".join(f"{key}={value}" for key, value in each.items()) for each in (theirs, settings))
        raise ArgumentError(f"checkpoint {path}: of another training ({', not '.join(both)}); remove it")
    return parts


def states(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The state_dict of each: networks, optimisers."""
    return {name: part.state_dict() for name, part in parts.items()}


def resume(path: str | os.PathLike[str] | None, settings: Mapping[str, Any], parts: Mapping[str, Any]) -> list[float]:
    """Give ``parts`` the states that a checkpoint holds; returns the losses until then: none without a checkpoint."""
    if not path or not Path(path).exists():
        return []
    saved = load_checkpoint(path, settings)
    try:
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        return list(saved["losses"])
    except Exception as error:  # torch raises anything
        reason = " ".join(str(error).split())[:200]
        raise CorruptFileError(f"checkpoint {path}: damaged, remove it: {reason}") from error


def training_device() -> Any:
    """Where networks are trained: a GPU where there is one."""
    torch = import_torch()
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def half_length(device: str = "cpu") -> Any:
    """The context of half-length products, which halve the time, where the device has them; else it does nothing."""
    torch = import_torch()
    if device == "cuda":
        has_them = torch.cuda.get_device_capability() >= (8, 0)
    else:
        has_them = device == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)
    # Where they would be imitated, they are slower than whole ones.
    return torch.autocast(device, torch.bfloat16) if has_them else contextlib.nullcontext()


def to_onnx(network: Any, input_name: str, shape: tuple[int, ...]) -> Any:
    """A torch network from inputs (n, *shape) to hashes as an onnx.ModelProto."""
    torch, onnx = import_torch(), import_onnx()
    buffer, example = BytesIO(), torch.zeros(2, *shape)
    axes = {input_name: {0: "n"}, "hashes": {0: "n"}}
    names: dict[str, Any] = {"input_names": [input_name], "output_names": ["hashes"], "dynamic_axes": axes}
    # Opset 13 and IR 7 or 8 are read by every onnxruntime that fasthash allows.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the newer exporter needs another package
        torch.onnx.export(network.eval(), (example,), buffer, **names, opset_version=13, dynamo=False)
    return onnx.load_from_string(buffer.getvalue())


def write_encoder(path: str | os.PathLike[str], model: Any, metadata: dict[str, Any]) -> Encoder:
    """Write an onnx.ModelProto as an encoder's file, with its metadata and a checksum over every byte.

    Adds the version of fasthash to the metadata. Returns the encoder as loaded back from what was written.
    """
    text = json.dumps({**metadata, "fasthash_version": __version__})
    import_onnx().helper.set_model_props(model, {METADATA_KEY: text, "checksum": CHECKSUM_BLANK.decode()})
    sealed = seal(model.SerializeToString())
    encoder = Encoder(sealed, str(path))
    with atomic_write(path) as file:
        file.write(sealed)
    return encoder
