"""What turning does to a radio encoder's codes, and how fast it encodes, on one thread.

    python -m benchmarks.radio_encoders DATASET [ENCODER ...]        (default: radio radio-8)

DATASET is a folder or zip of radio galaxies (data.zip); what it calls valid is taken, else all of it. Every image is
turned in its own pixels, by linear interpolation, by 23 angles that are multiples of 15 degrees. Images a second are
those of `encode_files`: from the file on the disk to the hash.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from scipy.ndimage import rotate

import fasthash as fh
from fasthash.errors import FastHashError
from fasthash.radio.dataset import RadioSet, read_dataset

ANGLES = range(15, 360, 15)


def bits(encoder: fh.Encoder, images: list[np.ndarray]) -> np.ndarray:
    return fh.unpack_bits(encoder.binarize(encoder.encode(images)), encoder.n_bits)


def share_changed(encoder: fh.Encoder, galaxies: RadioSet) -> np.ndarray:
    """Mean share of the bits that change, by angle."""
    still = bits(encoder, galaxies.images)
    turned = ([rotate(image, angle, reshape=False, order=1) for image in galaxies.images] for angle in ANGLES)
    return np.array([np.mean(bits(encoder, images) != still) for images in turned])


def images_a_second(encoder: fh.Encoder, galaxies: RadioSet) -> tuple[float, float]:
    """Of JPEG files together (the median of five turns), and the milliseconds of one alone (median)."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i, image in enumerate(galaxies.images):
            paths.append(str(Path(folder, f"{i}.jpg")))
            Pillow.fromarray(image.astype(np.uint8)).save(paths[-1])
        list(encoder.encode_files(paths[:8], num_threads=1))
        together, alone = [], []
        for _ in range(5):
            start = time.perf_counter()
            done = len(list(encoder.encode_files(paths, num_threads=1)))
            together.append(done / (time.perf_counter() - start))
        for path in paths[:50]:
            start = time.perf_counter()
            encoder.encode(path, num_threads=1)
            alone.append(time.perf_counter() - start)
    return float(np.median(together)), 1e3 * float(np.median(alone))


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: python -m benchmarks.radio_encoders DATASET [ENCODER ...]")
    galaxies = read_dataset(sys.argv[1])
    if (galaxies.splits == "valid").any():
        galaxies = galaxies.split("valid")
    for name in sys.argv[2:] or ("radio", "radio-8"):
        encoder = fh.load_encoder(name)
        changed = share_changed(encoder, galaxies)
        together, alone = images_a_second(encoder, galaxies)
        print(f"{name}: {len(galaxies)} images turned by {len(ANGLES)} angles: ", end="")
        print(f"1 bit in {1 / changed.mean():.1f} changes, in {1 / changed.max():.1f} at the worst angle; ", end="")
        print(f"{together:.0f} images a second, one alone {alone:.1f} ms")


if __name__ == "__main__":
    try:
        main()
    except FastHashError as error:
        sys.exit(f"error: {error}")
