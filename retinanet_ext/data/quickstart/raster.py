"""Drawing with OpenCV: the only file of the package's data room that touches it.

Points are continuous pixels, (x, y), with (0, 0) at the outer corner of the first pixel. Canvases
are uint8, (H, W) or (H, W, 3), drawn on in place. Only fixed-point functions are used, and of
those only what OpenCV 4 and 5 do alike (LINE_8 is not), so that the result is always the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import MissingPackageError

cv2: Any
try:
    import cv2
except ImportError as error:  # absent, or without a system library that it needs
    cv2, _reason = None, str(error)

__all__ = ["blur", "draw_line", "encode_png", "fill", "require_opencv", "shrink"]

SHIFT = 4  # fractional bits of a coordinate


def require_opencv() -> None:
    """Raise ImportError with the fix where OpenCV cannot be imported."""
    if cv2 is None:
        raise MissingPackageError(
            f"drawing the quickstart dataset needs OpenCV ({_reason}): "
            "pip install opencv-python-headless"
        )


def fill(canvas: np.ndarray, contours: Sequence[np.ndarray], colour: Any) -> None:
    """Fill the area between ``contours``, each (P, 2); a contour inside another one is a hole."""
    cv2.fillPoly(canvas, [_fixed(c) for c in contours], colour, cv2.LINE_AA, SHIFT)


def draw_line(
    canvas: np.ndarray, points: np.ndarray, colour: Any, thickness: int, closed: bool = False
) -> None:
    """Draw a line of whole ``thickness`` pixels through (P, 2) ``points``."""
    cv2.polylines(canvas, [_fixed(points)], closed, colour, thickness, cv2.LINE_AA, SHIFT)


def shrink(canvas: np.ndarray, factor: int) -> np.ndarray:
    """Mean of each ``factor`` x ``factor`` square of pixels."""
    height, width = canvas.shape[0] // factor, canvas.shape[1] // factor
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)


def blur(values: np.ndarray, sigma: float) -> np.ndarray:
    """Two box blurs of uint8 or uint16: near a Gaussian, as fast for a large ``sigma`` (px)."""
    side = 2 * round(sigma * 1.22) + 1  # a box of 2 r + 1 has the variance r (r + 1) / 3
    return cv2.blur(cv2.blur(values, (side, side)), (side, side))


def encode_png(image: np.ndarray) -> bytes:
    """PNG file of an (H, W, 3) uint8 RGB image."""
    # Only Huffman coding is fastest, and no larger for noisy images.
    options = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
    done, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]), options)
    assert done, "OpenCV failed to encode a PNG in memory"
    return data.tobytes()


def _fixed(points: np.ndarray) -> np.ndarray:
    # OpenCV has its pixel centres at integers, where we have edges.
    return np.rint((points - 0.5) * (1 << SHIFT)).astype(np.int32)
