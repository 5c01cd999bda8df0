"""Builds the one native module; everything else about the package is in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup

# Each kernel file in csrc/ names its own instruction set and the fastest one is chosen at run time,
# so the flags here are the same on every host.
hamming = Extension(
    "fasthash._hamming",
    sources=["fasthash/_hamming.pyx", *sorted(str(path) for path in Path("csrc").glob("*.c"))],
    include_dirs=["csrc"],
    depends=sorted(str(path) for path in Path("csrc").glob("*.h")),
    extra_compile_args=["-O3", "-std=c11"],
)

setup(ext_modules=[hamming])
