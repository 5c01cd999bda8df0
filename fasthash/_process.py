"""Another process that answers requests, both lines of JSON: what hangs or crashes there does no harm here."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any


class ProcessDied(Exception):
    """It ended before it replied; the text says how."""


class Process:
    """The other process, seen from here.

    Parameters
    ----------
    function : "module:name"
        What it runs: a function that reads stdin until that ends, and replies with what `replies` gives it.
    """

    def __init__(self, function: str) -> None:
        module, _, name = function.partition(":")
        # The import path is set before anything is imported, or a folder named fasthash beside the user would be found.
        code = f"import sys; sys.path[:] = {sys.path!r}; from {module} import {name}; {name}()"
        # In a session of its own: Ctrl-C is for the one who started it.
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def fd(self) -> int:
        """What becomes readable when a reply is there."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def send(self, request: Any, data: bytes = b"") -> None:
        """Ask, with some bytes behind the line where the other side expects them."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died: receive says so
            self._process.stdin.write(json.dumps(request).encode() + b"\n" + data)
            self._process.stdin.flush()

    def receive(self) -> Any:
        """The reply, waited for. Raises ProcessDied."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            self.close()
            code = self._process.returncode
            raise ProcessDied(f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}")
        return json.loads(line)

    def close(self, grace: float = 1.0) -> None:
        """Let it end by itself, for so many seconds; then kill it."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def replies() -> Callable[[Any], None]:
    """In the other process: what sends a reply. Whatever else it prints goes to stderr from now on."""
    file = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def reply(content: Any) -> None:
        file.write(json.dumps(content).encode() + b"\n")
        file.flush()

    return reply
