"""Weights laid out as one picture: kernels side by side, or a matrix."""

from __future__ import annotations

import numpy as np

__all__ = ["MOST", "laid_out"]

MOST = 8
"""So many kernels are shown of each axis; of a matrix, rows and columns eight times as many."""


def laid_out(weight: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Return one weight as a picture of values, ``NaN`` between kernels, and how many kernels are shown, of how many.

    Parameters
    ----------
    weight
        ``(Cout, Cin)``, ``(Cout, Cin, *K)`` with up to three axes of a kernel, of three the middle of the first; or
        ``(C,)``.

    Examples
    --------
    >>> picture, kernels = laid_out(np.zeros((2, 3, 3, 3)))
    >>> picture.shape, kernels
    ((7, 11), (6, 6))
    """
    if weight.ndim == 5:
        weight = weight[:, :, weight.shape[2] // 2]
    if weight.ndim == 3:
        weight = weight[:, :, None]
    while weight.ndim < 2:
        weight = weight[None]
    if weight.ndim == 2 or weight.shape[2:] == (1, 1):
        matrix = weight.reshape(weight.shape[0], weight.shape[1])
        shown = matrix[: MOST * MOST, : MOST * MOST]
        return shown, (shown.size, matrix.size)
    shown = weight[:MOST, :MOST]
    rows, columns, height, width = shown.shape
    picture = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + 1), column * (width + 1)
            picture[top : top + height, left : left + width] = shown[row, column]
    return picture, (rows * columns, weight.shape[0] * weight.shape[1])
