"""Arrays as PNG in a ``data:`` address: pictures that a page holds itself."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from ...errors import ShapeError
from .kernels import laid_out

__all__ = ["coloured", "in_page", "picture_of"]

BLUE, WHITE, RED, GREY = (np.array(one) for one in ((33, 102, 172), (247, 247, 247), (178, 24, 43), (128, 128, 128)))

SIDE, LARGEST = 200, 16
"""How long the longer side of a picture is, about, and the side of a value's square at most, in pixels."""


def in_page(pixels: np.ndarray) -> str:
    """Return a picture as an address that an ``<img>`` takes.

    Parameters
    ----------
    pixels
        ``(H, W)`` grey or ``(H, W, 3)``, ``uint8``.

    Raises
    ------
    ShapeError
        They are not.

    Examples
    --------
    >>> in_page(np.zeros((1, 1), np.uint8))[:22]
    'data:image/png;base64,'
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ShapeError(
            f"A picture is (H, W) or (H, W, 3) in uint8, but this is {pixels.shape} in {pixels.dtype}. Scale it to 0 "
            f"to 255 and convert it."
        )
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).reshape(height, -1)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()  # each row: no filter
    kind = 2 if pixels.ndim == 3 else 0
    parts = [(b"IHDR", struct.pack(">2I5B", width, height, 8, kind, 0, 0, 0)), (b"IDAT", zlib.compress(raw, 9))]
    chunks = b"".join(map(_chunk, *zip(*[*parts, (b"IEND", b"")], strict=True)))
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunks).decode()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def coloured(values: np.ndarray, most: float) -> np.ndarray:
    """Return values as squares of colour: ``-most`` blue, 0 white, ``most`` red, what is no number grey.

    Parameters
    ----------
    values
        ``(H, W)``.
    most
        The largest magnitude.
    """
    scale = max(1, min(LARGEST, SIDE // max(values.shape)))
    values = values.repeat(scale, 0).repeat(scale, 1)
    share = np.clip(np.nan_to_num(values / (most or 1.0)), -1.0, 1.0)[..., None]
    ends = np.where(share < 0, BLUE, RED)
    mixed = WHITE + (ends - WHITE) * np.abs(share)
    return np.where(np.isfinite(values)[..., None], mixed, GREY).round().astype(np.uint8)


def picture_of(weight: np.ndarray) -> np.ndarray:
    """Return a weight as a picture, ``(H, W, 3)`` in ``uint8``: its largest value blue or red, zero white.

    Parameters
    ----------
    weight
        As of :func:`~nni_dynconv.reporting.drawing.laid_out`.
    """
    finite = np.abs(weight[np.isfinite(weight)])
    return coloured(laid_out(weight)[0], float(finite.max(initial=0.0)))
