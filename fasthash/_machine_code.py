"""Numba functions as machine code that a new process need not compile again.

Compiling takes Numba a second; the code it makes is a few kilobytes, and needs no Numba to run. So that of the common
kernels is built with the package (setup.py), for the CPU of the host that builds it. Elsewhere, and for rarer kernels,
it is made when it is first needed and kept in the user's cache folder ($XDG_CACHE_HOME/fasthash, else
~/.cache/fasthash). A file is a checksummed container under a name that says for which source and CPU it is; one that is
damaged, or not there, is made anew; a folder that cannot be written is done without. Numba's own cache would be a
pickle, and does not heal.
"""

import contextlib
import ctypes
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fasthash._storage import read_container, write_container
from fasthash.errors import FastHashError

_KIND = "machine-code"
BUILT = Path(__file__).parent / "_compiled" / "fasthash"  # made by setup.py
_lock = threading.Lock()
_engines: list[Any] = []  # linked code lives as long as its engine


def machine_code(
    name: str, source: Path, compile_it: Callable[[], tuple[str, str]], arguments: tuple[Any, ...]
) -> Callable[..., None]:
    """A function compiled by Numba, from what is kept or made now; calls release the GIL.

    Parameters
    ----------
    name : str
        Tells the functions of one source apart.
    source : Path
        The file whose text the code depends on.
    compile_it : callable() -> (LLVM assembly, symbol)
        Called only where the code is not kept.
    arguments : ctypes types of the function's arguments; it returns nothing.
    """
    with _lock:
        import llvmlite.binding as llvm

        file = f"{name}-{_key(llvm, source)}.code"
        code, symbol = _kept(BUILT / file) or _of_user(llvm, file, compile_it)
        return _callable(_link(llvm, code, symbol), arguments)


def to_assembly(function: Callable[..., None], signature: Any) -> tuple[str, str]:
    """The LLVM assembly, optimised for this CPU, that Numba makes of a function, and the name of the function in it."""
    from numba import njit

    # No wrappers: they would tie the code to this process's Python.
    options = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    compiled = njit(signature, **options)(function)
    return compiled.inspect_llvm(signature.args), compiled.overloads[signature.args].fndesc.llvm_func_name


def _kept(path: Path) -> tuple[bytes, str] | None:
    try:
        meta, arrays = read_container(path, _KIND)
    except FastHashError:  # not there yet, or damaged
        return None
    return arrays["code"].tobytes(), meta["symbol"]


def _of_user(llvm: Any, file: str, compile_it: Callable[[], tuple[str, str]]) -> tuple[bytes, str]:
    """From the user's cache folder, or made now and kept there."""
    folder = _users_folder()
    if folder is not None and (kept := _kept(folder / file)):
        return kept
    assembly, symbol = compile_it()
    code: bytes = _target(llvm).emit_object(llvm.parse_assembly(assembly))
    if folder is not None:
        with contextlib.suppress(FastHashError):  # a full disk is no reason not to compute
            write_container(folder / file, _KIND, {"symbol": symbol}, {"code": np.frombuffer(code, np.uint8)})
    return code, symbol


def _users_folder() -> Path | None:
    """A folder of this user's own, for what lies in it is run; None where there is none."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = Path(cache if os.path.isabs(cache) else Path.home() / ".cache") / "fasthash"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # not writable; no home at all
        return None
    return folder if not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid() else None


def _key(llvm: Any, source: Path) -> str:
    settings = sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_"))
    cpu = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(), llvm.get_process_triple()
    parts = source.read_bytes(), Path(__file__).read_bytes(), cpu, settings
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()


def _target(llvm: Any) -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, jit=True
    )


def _link(llvm: Any, code: bytes, symbol: str) -> int:
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target(llvm))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return int(engine.get_function_address(symbol))


def _callable(address: int, arguments: tuple[Any, ...]) -> Callable[..., None]:
    # Numba's calling convention: where to put the result, where to put an error, then the arguments; 0 means done.
    function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *arguments)(address)

    def call(*values: Any) -> None:
        result, error = ctypes.c_void_p(), ctypes.c_void_p()
        status = function(ctypes.addressof(result), ctypes.addressof(error), *values)
        if status != 0:
            raise FastHashError(f"a compiled function failed with status {status}")

    return call
