"""One Sun, one hash: how much the hash of a magnetogram changes when the frame does, and the Sun does not.

    python -m benchmarks.one_sun FRAME.fits [ENCODER]

FRAME is a full-disk magnetogram of HMI, 4096 x 4096; ENCODER is `solar` unless said. Prints a table as Markdown: the L2
distance of the hashes as a share of the first one's length, and how many bits change.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, rotate

from fasthash import load_encoder, read_image
from fasthash.io import Image

MDI_SIZE, MDI_TIMES_HMI, MDI_NOISE = 1024, 1.40, 20.0  # pixels, field, gauss


def changed(image: Image, pixels: NDArray[Any], **cards: Any) -> Image:
    return replace(image, source=np.ascontiguousarray(pixels, np.float32), header={**image.header, **cards})


def turned(image: Image, degrees: float) -> Image:
    """In its own pixels about the middle of the image, and the header with them."""
    pixels = rotate(image.pixels, degrees, reshape=False, order=1, cval=np.nan)
    middle = (np.array(pixels.shape[::-1]) + 1) / 2
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    x, y = turn @ ([image.header["CRPIX1"], image.header["CRPIX2"]] - middle) + middle
    return changed(image, pixels, CRPIX1=x, CRPIX2=y, CROTA2=image.header["CROTA2"] + degrees)


def averaged(image: Image, by: int) -> Image:
    """Over blocks of so many pixels a side."""
    rows, columns = (length // by for length in image.shape)
    pixels = image.pixels.reshape(rows, by, columns, by).mean(axis=(1, 3))
    places = {card: (image.header[card] - 0.5) / by + 0.5 for card in ("CRPIX1", "CRPIX2")}
    return changed(image, pixels, **places, **{card: image.header[card] * by for card in ("CDELT1", "CDELT2")})


def without(image: Image, where: Any) -> Image:
    pixels = image.pixels.copy()
    pixels[where] = np.nan
    return changed(image, pixels)


def as_mdi(image: Image) -> Image:
    small = averaged(image, image.shape[0] // MDI_SIZE)
    sky = np.isnan(small.pixels)
    field = gaussian_filter(np.where(sky, 0, small.pixels), 1) * MDI_TIMES_HMI
    field += np.random.default_rng(0).normal(0, MDI_NOISE, field.shape)
    return changed(small, np.where(sky, np.nan, field), TELESCOP="SOHO", INSTRUME="MDI")


def alterations(image: Image) -> Iterator[tuple[str, Image]]:
    around = (slice(1024, -1024),) * 2  # the strongest pixel of the disk's inner part
    y, x = np.unravel_index(np.nanargmax(gaussian_filter(np.abs(image.pixels[around]), 20)), image.pixels[around].shape)
    yield "turned by 180 degrees", turned(image, 180.0)
    for degrees in (0.1, 1.0, 3.0, 10.0, 45.0):
        yield f"turned by {degrees:g} degrees", turned(image, degrees)
    for by in (2, 4, 16):
        yield f"averaged to {image.shape[0] // by} x {image.shape[1] // by} pixels", averaged(image, by)
    yield "300 rows lost", without(image, slice(1900, 2200))
    block = slice(1024 + y - 256, 1024 + y + 256), slice(1024 + x - 256, 1024 + x + 256)
    yield "a block of 512 x 512 pixels lost, strong field in it", without(image, block)
    yield f"as MDI might show it: {MDI_SIZE} pixels, {MDI_TIMES_HMI} times the field, blurred, noise", as_mdi(image)


def main(path: str, name: str = "solar") -> None:
    encoder, image = load_encoder(name), read_image(path)
    hashes = encoder.encode([image])
    print("| the frame | change of the hash, % | bits that change |\n|---|---|---|")
    for what, other in alterations(image):
        theirs = encoder.encode([other])
        change = 100 * np.linalg.norm(theirs - hashes) / np.linalg.norm(hashes)
        flips = np.bitwise_count(encoder.binarize(theirs) ^ encoder.binarize(hashes)).sum()
        print(f"| {what} | {change:.1f} | {flips} |", flush=True)


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
