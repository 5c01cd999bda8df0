"""The cut-out: the middle of an image of a radio source, from noise to peak as 0 to 1, at the size a network takes.

Whatever an image comes from, the same steps make it alike: the background is its median; what is less than three sigma
above that is noise, and becomes 0; the peak becomes 1. The pictures of the published sets have been made so (sigma
clipping, then linear in flux), hence nothing changes in them but the peak; a FITS cut-out in Jy a beam becomes like
them. The square that is cut out is told in pixels of FIRST, so it covers the same sky in cut-outs of any size.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._validation import check_choice, check_int
from fasthash.errors import ReadError
from fasthash.io import Image, resize
from fasthash.radio.dataset import label_of
from fasthash.radio.sky import PIXEL, pixel_scale

STRETCHES = ("linear", "sqrt", "asinh", "log")

_CLIP = 3.0  # sigma
_SMALLEST = 16  # pixels a side
_LARGEST = 8192  # pixels a side of the square: a thin image, or a header of tiny pixels, would fill all memory
_ASINH = 0.05  # of the peak: where asinh turns from linear to logarithmic
_LOG = 1000.0  # log(1 + 1000 x), as DS9 has it


class Cutout:
    """The front end of encoders of kind "cutout".

    Parameters
    ----------
    size : int
        Pixels a side of what comes out.
    crop : int or None
        Side of the square that is cut from the middle, in pixels of FIRST (1.8"): 150 is a published cut-out as it is.
        An image that covers less sky is filled up with background. None: the whole image, whatever it covers.
    stretch : {"linear", "sqrt", "asinh", "log"}
        What is done to flux as a share of the peak. The last three lift what is faint.
    """

    timeless = True  # when a radio galaxy was observed does not matter

    def __init__(self, size: int = 72, crop: int | None = 80, stretch: str = "linear") -> None:
        self.size = check_int("size", size, 8, 1024)
        self.crop = None if crop is None else check_int("crop", crop, 8, 4096)
        self.stretch = check_choice("stretch", stretch, STRETCHES)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Cutout":
        """From the settings that an encoder's metadata hold."""
        return cls(settings["size"], settings["crop"], settings["stretch"])

    def settings(self) -> dict[str, Any]:
        """What from_settings takes, and JSON can hold."""
        return {"kind": "cutout", "size": self.size, "crop": self.crop, "stretch": self.stretch}

    def describe(self, image: Image, num_threads: int = 1) -> NDArray[np.float32]:  # noqa: ARG002
        """float32 array (size, size) in [0, 1], rows running down.

        Raises ReadError where the image is smaller than 16 x 16, the square larger than 8192 x 8192 of its pixels, or
        nothing in it stands out from the noise.
        """
        name = image.path or "image"
        height, width = image.pixels.shape
        if min(height, width) < _SMALLEST:
            raise ReadError(f"{name}: {width} x {height} pixels; expected at least {_SMALLEST} a side")
        side = float(max(height, width)) if self.crop is None else self.crop * PIXEL / pixel_scale(image.header)
        if side > _LARGEST:
            raise ReadError(f"{name}: its square would have {side:.6g} pixels a side; expected at most {_LARGEST}")
        flux = above_noise(image.pixels[::-1] if image.header else image.pixels)
        square, box = _central_square(flux, side)
        if not square.any():
            raise ReadError(f"{name}: nothing stands out from the noise in its central {side:.4g} pixels")
        # To the peak before it is resampled, so that a file's unit changes no rounding, and once more after it.
        share = resize(square / square.max(), (self.size, self.size), box)
        return _stretched(share / max(share.max(), np.float32(1e-6)), self.stretch)

    def picture(self, image: Image) -> NDArray[np.float32]:
        """The same square for the eye, float32 (150, 150) in [0, 1]: the square root lifts what is faint."""
        return Cutout(150, self.crop, "sqrt").describe(image)

    @staticmethod
    def label(path: str) -> str:
        """The class of an image by the folder it lies in; "" where that is named after none."""
        return label_of(path)


def above_noise(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Flux above the background, float32 (H, W), in the unit of ``pixels``; 0 in noise and where pixels are NaN.

    Background is the median, noise 1.4826 times the median absolute deviation from it: neither knows a source that
    covers less than a quarter of the image.
    """
    known = pixels[np.isfinite(pixels)]
    if not len(known):
        return np.zeros_like(pixels)
    background = np.median(known)
    noise = 1.4826 * np.median(np.abs(known - background))
    flux = np.nan_to_num(pixels - background, nan=0.0)
    return np.where(flux > _CLIP * noise, flux, np.float32(0))


def _central_square(
    pixels: NDArray[np.float32], side: float
) -> tuple[NDArray[np.float32], tuple[float, float, float, float]]:
    """The pixels that a square of ``side`` around the middle touches, 0 beyond the image; and its box in them."""
    pad = [max(0, math.ceil((side - length) / 2)) for length in pixels.shape]
    pixels = np.pad(pixels, [(each, each) for each in pad])
    top, left = ((length - side) / 2 for length in pixels.shape)
    rows, columns = (slice(math.floor(edge), math.ceil(edge + side)) for edge in (top, left))
    top, left = top - rows.start, left - columns.start
    return pixels[rows, columns], (left, top, left + side, top + side)


def _stretched(share: NDArray[np.float32], stretch: str) -> NDArray[np.float32]:
    share = np.clip(share, 0, 1)
    if stretch == "sqrt":
        share = np.sqrt(share)
    elif stretch == "asinh":
        share = np.arcsinh(share / _ASINH) / np.arcsinh(1 / _ASINH)
    elif stretch == "log":
        share = np.log1p(_LOG * share) / np.log1p(_LOG)
    return np.asarray(share, np.float32)
