"""Builds the native modules; everything else about the package is in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup


def native(module: str, *sources: str) -> Extension:
    """fasthash/MODULE.pyx and the files of csrc/ that match.

    Each kernel file names its own instruction set and the fastest one is chosen at run time, so the flags are the same
    on every host. None of them may change a result: -ffp-contract=off keeps products and sums apart everywhere.
    """
    return Extension(
        f"fasthash.{module}",
        sources=[f"fasthash/{module}.pyx", *sorted(str(path) for name in sources for path in Path("csrc").glob(name))],
        include_dirs=["csrc"],
        depends=sorted(str(path) for path in Path("csrc").glob("*.h")),
        extra_compile_args=["-O3", "-std=c11", "-ffp-contract=off", "-fno-math-errno"],
    )


setup(
    ext_modules=[
        native("_hamming", "dispatch.c", "hamming*.c"),
        native("_multi_index", "multi_index*.c"),
        native("_tiles", "tiles*.c"),
        native("_vectors", "vectors*.c"),
    ]
)
