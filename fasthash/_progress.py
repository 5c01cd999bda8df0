"""Progress of long work, on stderr: a line that renews itself on a terminal, a line now and then elsewhere."""

import sys
import time


class Progress:
    """A callable ``(done, total)`` that tells how far ``what`` has come and how fast."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._start = self._last = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def __call__(self, done: int, total: int, note: object = "") -> None:
        now = time.monotonic()
        if done < total and now - self._last < (0.1 if self._terminal else 10.0):
            return
        self._last = now
        seconds = now - self._start
        if not self._terminal and seconds < 10:  # over before anyone could wonder: a log holds messages alone
            return
        rate = f"{done / seconds:.1f}/s" if seconds > 0 else ""
        text = f"{self._what}: {done} of {total}, {seconds:.0f} s, {rate}{f', {note}' if note else ''}"
        if self._terminal:
            print(f"\r\x1b[K{text}", end="\n" if done >= total else "", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)
