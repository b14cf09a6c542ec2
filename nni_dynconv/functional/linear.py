"""``linear``: an affine map whose weights are shared, or made anew for samples or blocks of them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..errors import ShapeError
from .calling import find_plan, run
from .composed import Composed

__all__ = ["linear"]


def linear(
    x: Tensor,  # B ... Cin
    weight: Tensor | Composed,  # Cout Cin, or B Cout Cin, or D Cout Cin
    bias: Tensor | None = None,  # Cout, or B Cout, or D Cout
    *,
    counts: Sequence[int] | None = None,
) -> Tensor:  # B ... Cout
    r"""Map the last axis of each sample with the shared weights, with its own, or with those of its block of samples.

    .. math:: y_b = x_b w_{d(b)}^\top + c_{d(b)}, \qquad b = 1, \dots, B

    Parameters
    ----------
    x : Tensor, shape (B, ..., Cin)
    weight : Tensor, shape (Cout, Cin), (B, Cout, Cin) or (D, Cout, Cin)
        Two axes: shared by all samples. Three: one set per sample, or one for each of D blocks of consecutive samples:
        of B/D samples, or of ``counts``. Or a :class:`LowRank`, :class:`Scaled` or :class:`Mixed`:
        the planner forms these, or applies their parts.
    bias : Tensor, shape (Cout,), (B, Cout) or (D, Cout), optional
        Shared, per sample or per block, whatever the weight is.
    counts : sequence of int, optional
        Samples in each of the D blocks, where they are not equal; their sum is B.

    Returns
    -------
    Tensor, shape (B, ..., Cout)

    Raises
    ------
    ShapeError
        If an axis does not fit; the text names it and shows both sizes.

    Examples
    --------
    >>> import torch
    >>> weight = torch.tensor([[[1.0, 1, 1]], [[2, 2, 2]]])
    >>> linear(torch.ones(2, 3), weight).tolist()
    [[3.0], [6.0]]
    >>> linear(torch.ones(4, 3), weight).flatten().tolist()
    [3.0, 3.0, 6.0, 6.0]
    """
    if counts is not None and not isinstance(counts, Sequence):
        raise ShapeError(f"`linear`: `counts` is {counts!r}, but must be a sequence of whole numbers.")
    plan = find_plan(0, x, weight, bias, (None if counts is None else tuple(counts),))
    return run(plan, x, weight, bias)
