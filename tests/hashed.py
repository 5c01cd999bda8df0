"""Encoded images made of random numbers, for tests that need many rows and no pixels."""

import hashlib

import numpy as np

from fasthash.encoder import Encoded
from fasthash.io import Image

HOUR = 3_600_000
NO_PIXELS = np.empty((0, 0), np.float32)


def make_items(encoder, n, seed=0, first=0, hours=1.0, labels=("", "FRI", "FRII")):
    """n images, an image every so many hours; close in time is close in hash. Some have no time, no card, no label."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(size=(n, encoder.dim)), axis=0).astype(np.float32)
    rows, cols = encoder.cell_grid
    cells = rng.integers(0, 256, (n, rows, cols, 16), np.uint8)
    items = []
    for i in range(n):
        number = first + i
        time = np.datetime64(round(number * hours * HOUR), "ms") if number % 7 else np.datetime64("NaT", "ms")
        header = {"TELESCOP": ("SDO/HMI", "SOHO")[number % 2], "CROTA2": number / 10} if number % 5 else {}
        digest = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=16).hexdigest()
        image = Image(NO_PIXELS, f"frames/{number}.fits", time, header, digest=digest)
        items.append(Encoded(image, walk[i], labels[number % len(labels)], cells[i], encoder.fingerprint))
    return items
