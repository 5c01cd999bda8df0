"""The Numba kernel that draws magnetic concentrations on a magnetogram; it trusts its input (simulator.py checks it).

Neither a sine nor an exponential of the C library is called: turning by a small angle takes a short series, and the
bell of a concentration is a high power. So a pixel costs a few nanoseconds, and hosts agree to the last bit.
"""

import math

import numpy as np
from numba import carray, njit, types

from fasthash._machine_code import to_assembly

_LIMB = 0.02  # in z: the last degree before the limb shows next to no field along the line of sight
_BLUR2 = 0.5**2  # square pixels; about the blur of averaging over a pixel
_REACH = 2.5  # sigmas from the middle of a concentration to where it is cut off


@njit(nogil=True, inline="always")
def _bell(exponent):
    """exp(exponent) for 0 and below, as (1 + exponent / 1024)^1024: to a hundredth down to 4 sigmas."""
    power = max(0.0, 1.0 + exponent * (1.0 / 1024))
    for _ in range(10):
        power *= power
    return power


def compile_draw() -> tuple[str, str]:
    """What `machine_code` wants of the kernel."""

    def draw(
        field_at, n, first, last, now, life, cos_l0, sin_l0, cos_b0, sin_b0, cos_turn, sin_turn, distance, pixel,
        image_at, size,
    ):  # fmt: skip
        """Add the concentrations [first, last) of ``field`` (7, n) to ``image`` (size, size).

        Rows of ``field``: x, y, z at birth (Carrington axes, z north), drift (radians a day), birth (days), flux
        (gauss times solar radii squared), sigma (solar radii). ``life``: days; 0 for those that do not change.
        """
        field, image = carray(field_at, (7, n)), carray(image_at, (size, size))
        middle = (size - 1) * 0.5
        for i in range(first, last):
            x, y, z, flux = field[0, i], field[1, i], field[2, i], field[5, i]
            age = now - field[4, i]
            if life > 0:
                part = age / life
                flux *= 30.0 * (part * (1.0 - part)) ** 2  # from nothing to nothing; 1 on average
            angle = field[3, i] * age
            sine, cosine = angle - angle * angle * angle / 6, 1.0 - 0.5 * angle * angle
            x, y = x * cosine - y * sine, y * cosine + x * sine
            toward, west = x * cos_l0 + y * sin_l0, y * cos_l0 - x * sin_l0
            north, near = z * cos_b0 - toward * sin_b0, z * sin_b0 + toward * cos_b0
            if near * distance <= 1.0 + _LIMB * distance:
                continue
            away = distance - near
            mu = (distance * near - 1.0) / math.sqrt(west * west + north * north + away * away)
            scale = 1.0 / (away * pixel)  # pixels in a solar radius
            right, up = scale * (west * cos_turn + north * sin_turn), scale * (north * cos_turn - west * sin_turn)
            # A round concentration looks like an ellipse that is narrow along the radius of the disk.
            sigma2 = (field[6, i] * scale) ** 2
            across2, along2 = sigma2 + _BLUR2, sigma2 * mu * mu + _BLUR2
            # One mu is the projection of the field, the other that of the area.
            peak = flux * (mu * scale) ** 2 / (2.0 * math.pi * math.sqrt(across2 * along2))
            narrow = (1.0 / along2 - 1.0 / across2) / max(right * right + up * up, 1e-9)
            xx, yy = 1.0 / across2 + right * right * narrow, 1.0 / across2 + up * up * narrow
            xy = 2.0 * right * up * narrow
            column, row = right + middle, up + middle
            reach = max(1, int(np.rint(_REACH * math.sqrt(across2))))
            near_column, near_row = int(np.rint(column)), int(np.rint(row))
            for r in range(max(0, near_row - reach), min(size, near_row + reach + 1)):
                dy = r - row
                for c in range(max(0, near_column - reach), min(size, near_column + reach + 1)):
                    dx = c - column
                    image[r, c] += peak * _bell(-0.5 * (xx * dx * dx + (yy * dy + xy * dx) * dy))

    index, real, at = types.int64, types.float64, types.CPointer(types.float32)
    signature = types.void(
        at, index, index, index, real, real, real, real, real, real, real, real, real, real, at, index
    )
    return to_assembly(draw, signature)
