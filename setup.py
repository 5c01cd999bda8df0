"""Builds the native modules and kernels; everything else about the package is in pyproject.toml."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent.absolute()


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


class BuildNative(build_ext):
    """The extensions, and then machine code of the Numba kernels, so that no user's first call has to compile them."""

    def run(self) -> None:
        super().run()
        in_place = self.inplace or self.editable_mode
        package = HERE if in_place else Path(self.build_lib).absolute()
        if not in_place:  # only there the kernels' modules can be imported: beside the extensions
            self.run_command("build_py")
        compiled = package / "fasthash" / "_compiled"
        shutil.rmtree(compiled, ignore_errors=True)
        # Kept as if for a user whose cache folder this is. What the build requires lies in a folder of pip's own.
        paths = os.pathsep.join([str(package), *sys.path])
        environment = {**os.environ, "XDG_CACHE_HOME": str(compiled), "PYTHONPATH": paths}
        subprocess.run([sys.executable, "-m", "fasthash._compile"], cwd=package, env=environment, check=True)


setup(
    cmdclass={"build_ext": BuildNative},
    ext_modules=[
        native("_dense", "dense*.c"),
        native("_hamming", "dispatch.c", "hamming*.c"),
        native("_multi_index", "multi_index*.c"),
        native("_tiles", "tiles*.c"),
        native("_vectors", "vectors*.c"),
    ],
)
