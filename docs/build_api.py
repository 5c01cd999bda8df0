"""Writes docs/api.md, the reference, from the docstrings.

python docs/build_api.py        # make docs
"""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fasthash

PAGE = Path(__file__).parent / "api.md"
# Whose public names are listed beyond those of fasthash itself.
MODULES = [
    "hamming",
    "index",
    "encoder",
    "bulk",
    "watch",
    "exchange",
    "io",
    "times",
    "evaluation",
    "ranking",
    "classification",
    "baselines",
    "plots",
    "solar.simulator",
    "solar.regions",
    "solar.fetch",
    "solar.baselines",
    "radio.simulator",
    "radio.dataset",
    "radio.cutout",
    "radio.fetch",
    "radio.baselines",
]
HEAD = """# API reference

Written by `make docs` from the docstrings. What is raised on purpose is a child of `FastHashError`; `num_threads=-1`
is a thread for every core.

<!-- constants: 2.2: a section; 95 % of the intervals; 99.5: the percentile of white; 6.3 and 1.8 G of HMI's noise, 0.4
if it were independent; 1.8" of FIRST; 3.04 Mm2; 1.4826 times the median deviation; 2311.11286: a time -->"""


def reference() -> str:
    """The whole page."""
    parts = [HEAD]
    seen: set[int] = set()
    for module in ("fasthash", *(f"fasthash.{name}" for name in MODULES)):
        loaded = importlib.import_module(module)
        names = fasthash.__all__ if module == "fasthash" else sorted(own_names(loaded, module))
        fresh = [(name, getattr(loaded, name)) for name in names if id(getattr(loaded, name)) not in seen]
        seen.update(id(item) for _, item in fresh)
        entries = [part for name, item in fresh if callable(item) for part in described(name, item)]
        parts += [f"## `{module}`", *entries] if entries else []
    return "\n\n".join(parts) + "\n"


def own_names(loaded: Any, module: str) -> Iterator[str]:
    """The public functions and classes that a module defines."""
    for name, item in vars(loaded).items():
        if not name.startswith("_") and getattr(item, "__module__", "") == module and inspect.getdoc(item):
            yield name


def described(name: str, item: Any) -> Iterator[str]:
    """Signature and docstring of a function or a class; then those of its public methods and properties."""
    yield f"### `{signature(name, item)}`"
    yield f"```text\n{inspect.getdoc(item)}\n```"
    if not inspect.isclass(item) or issubclass(item, Exception):
        return
    for member in sorted(name for name in dir(item) if not name.startswith("_")):
        value, static = getattr(item, member), inspect.getattr_static(item, member)
        if isinstance(static, property) or callable(value):
            says = member if isinstance(static, property) else signature(member, value)
            yield f"`{item.__name__}.{says}`"
            yield f"```text\n{inspect.getdoc(static)}\n```"


def signature(name: str, item: Any) -> str:
    """A call with the names and defaults of its arguments; docstrings say what they are."""
    try:
        arguments = inspect.signature(item).parameters.values()
    except (TypeError, ValueError):  # an exception's
        return name
    return f"{name}{inspect.Signature([plain(argument) for argument in arguments if argument.name != 'self'])}"


def plain(argument: inspect.Parameter) -> inspect.Parameter:
    """Without its type; a default that is a function has no address."""
    default = getattr(argument.default, "__name__", None) if callable(argument.default) else None
    named = (
        inspect.Parameter.empty
        if argument.default is inspect.Parameter.empty
        else Word(default or repr(argument.default))
    )
    return argument.replace(annotation=inspect.Parameter.empty, default=named)


class Word(str):
    """A text that is its own repr."""

    def __repr__(self) -> str:
        return str(self)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
