"""What fasthash itself reads of an ONNX file, without the package onnx: its metadata, a graph's nodes and constants.

A file is one protobuf message: fields, each a key and a value. A key is ``number << 3 | wire type``; messages nest as
values of bytes. The numbers of the fields are those of onnx.proto (github.com/onnx/onnx); fields that are of no use
here are passed over. Files are untrusted: whatever the bytes, the outcome is what they say or ValueError.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_FLOAT = 1  # TensorProto.DataType
_MAX_DIMS = 32  # of an array; the product of many thousands of numbers takes minutes
_Value = int | memoryview


@dataclass(frozen=True)
class Node:
    """One operation. Attributes that are neither a float nor an integer are None."""

    kind: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, float | int | None]


class Model:
    """A file's metadata, and its graph, which is read when it is asked for.

    Raises ValueError, here and wherever it is read further, where the bytes are no ONNX.
    """

    def __init__(self, data: bytes) -> None:
        fields = [field for field in _fields(memoryview(data)) if field[0] in (7, 14)]
        entries = [dict(_fields(_bytes(value))) for number, value in fields if number == 14]
        self.metadata = {_text(entry.get(1, _NOTHING)): _text(entry.get(2, _NOTHING)) for entry in entries}
        self._graph = [_bytes(value) for number, value in fields if number == 7]
        if len(self._graph) != 1:
            raise ValueError("not an ONNX file: no graph in it")

    def nodes(self) -> Iterator[Node]:
        """The operations, in an order in which they can be done."""
        return (_node(value) for value in self._of_graph(1))

    def inputs_and_outputs(self) -> tuple[list[str], list[str]]:
        """Their names; constants may be among the inputs."""
        inputs, outputs = ([_name(value, 1) for value in self._of_graph(number)] for number in (11, 12))
        return inputs, outputs

    def constants(self) -> dict[str, NDArray[np.float32] | None]:
        """The initialisers by name, as views of the file; None where one is empty, not of float32, or elsewhere."""
        return {_name(value, 8): _tensor(value) for value in self._of_graph(5)}

    def _of_graph(self, wanted: int) -> Iterator[memoryview]:
        return (_bytes(value) for number, value in _fields(self._graph[0]) if number == wanted)


_NOTHING = memoryview(b"")


def _fields(message: memoryview) -> Iterator[tuple[int, _Value]]:
    """The fields of a message, in order: an integer, or bytes, four and eight of which may be a number."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire_type = key & 7
        if wire_type == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if wire_type == _BYTES:
            length, at = _varint(message, at)
        elif wire_type in (_FOUR_BYTES, _EIGHT_BYTES):
            length = 4 if wire_type == _FOUR_BYTES else 8
        else:
            raise ValueError(f"not an ONNX file: wire type {wire_type}")
        if length > len(message) - at:
            raise ValueError("not an ONNX file: a field is cut short")
        yield key >> 3, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number that starts there, seven bits a byte from the lowest on, and where it ends."""
    number = 0
    for i, byte in enumerate(message[at : at + 10]):
        number |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, at + i + 1
    raise ValueError("not an ONNX file: a number without an end")


def _bytes(value: _Value) -> memoryview:
    if isinstance(value, int):
        raise ValueError("not an ONNX file: a number in the place of a message")
    return value


def _text(value: _Value) -> str:
    return bytes(_bytes(value)).decode()


def _name(message: memoryview, wanted: int) -> str:
    return next((_text(value) for number, value in _fields(message) if number == wanted), "")


def _node(message: memoryview) -> Node:
    fields = list(_fields(message))
    texts: dict[int, list[str]] = {
        wanted: [_text(value) for number, value in fields if number == wanted] for wanted in (1, 2, 4, 7)
    }
    kind, domain = "".join(texts[4]), "".join(texts[7])
    attributes = [dict(_fields(_bytes(value))) for number, value in fields if number == 5]
    values = {_text(of.get(1, _NOTHING)): _attribute(of) for of in attributes}
    return Node(kind if domain in ("", "ai.onnx") else f"{domain}.{kind}", texts[1], texts[2], values)


def _attribute(fields: dict[int, _Value]) -> float | int | None:
    kind, number = fields.get(20), fields.get(2)
    if kind == 1 and isinstance(number, memoryview) and len(number) == 4:
        return float(np.frombuffer(number, "<f4")[0])
    value = fields.get(3, 0)  # a number that is 0 may be left out
    return value if kind == 2 and isinstance(value, int) else None


def _tensor(message: memoryview) -> NDArray[np.float32] | None:
    dims: list[int] = []
    fields: dict[int, _Value] = {}
    for number, value in _fields(message):
        if number != 1:
            fields[number] = value
        elif isinstance(value, int):
            dims.append(value)
        else:  # packed
            at = 0
            while at < len(value):
                dim, at = _varint(value, at)
                dims.append(dim)
    raw = fields.get(9)
    if fields.get(2) != _FLOAT or not isinstance(raw, memoryview) or fields.get(14, 0) != 0:
        return None
    if len(dims) > _MAX_DIMS:
        raise ValueError(f"not an ONNX file: a tensor of {len(dims)} dimensions")
    if math.prod(dims) == 0:
        return None
    if len(raw) != 4 * math.prod(dims):
        raise ValueError(f"not an ONNX file: {len(raw)} bytes for a tensor of shape {dims}")
    return np.frombuffer(raw, "<f4").astype(np.float32, copy=False).reshape(dims)
