"""What every training shares: its optional dependencies, reproducible torch, and the file it ends in."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fasthash._storage import atomic_write
from fasthash._version import __version__
from fasthash.encoder import CHECKSUM_BLANK, METADATA_KEY, Encoder, seal
from fasthash.errors import ArgumentError, CorruptFileError, FastHashError, MissingDependencyError


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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(num_threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


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


class Checkpoint:
    """All that a training needs to go on, in one file; without a path, nothing is kept.

    ``settings`` say which training it is. ``parts`` are what has a state_dict: networks, optimisers. Random numbers
    have no place: trainings seed them step by step.
    """

    def __init__(self, path: str | os.PathLike[str] | None, settings: Mapping[str, Any], **parts: Any) -> None:
        self.path, self.settings, self.parts = path, dict(settings), parts

    def save(self, **progress: Any) -> None:
        """Write the state of all parts, and numbers, or lists of them, that say how far the training is."""
        if not self.path:
            return
        states = {name: part.state_dict() for name, part in self.parts.items()}
        with atomic_write(self.path) as file:
            import_torch().save({"settings": self.settings, "progress": progress, **states}, file)

    def load(self) -> dict[str, Any]:
        """Take the state of all parts from the file and return the numbers; none where there is no file yet.

        Raises ArgumentError where it is of another training, CorruptFileError where it is damaged.
        """
        if not self.path or not Path(self.path).exists():
            return {}
        try:
            saved = import_torch().load(self.path, weights_only=True)
            if saved["settings"] != self.settings:
                theirs, ours = (" ".join(f"{k}={v}" for k, v in s.items()) for s in (saved["settings"], self.settings))
                raise ArgumentError(f"checkpoint {self.path}: of another training ({theirs}, not {ours}); remove it")
            for name, part in self.parts.items():
                part.load_state_dict(saved[name])
            return dict(saved["progress"])
        except FastHashError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise CorruptFileError(f"checkpoint {self.path}: damaged, remove it: {reason}") from error
