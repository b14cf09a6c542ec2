"""A weight as a product of two thin factors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import Axes
from .shapes import measured_once

__all__ = ["LowRank"]

KERNEL = {0: "", 1: "K", 2: "Kh Kw", 3: "Kt Kh Kw"}


class LowRank(NamedTuple):
    r"""The weight of a convolution, or of a linear map, as a product of two factors, on top of a shared base.

    .. math:: W_d = W_0 + A_d B_d

    The convolutions of :mod:`nni_dynconv.functional` and its ``linear`` take it in the place of a weight. Where it pays
    they apply the factors to the activations, a map to ``r`` channels and a 1x1 convolution, or a linear map, behind
    it, and never hold :math:`W_d`.

    Parameters
    ----------
    A : Tensor, shape (Cout, r), (B, Cout, r) or (D, Cout, r)
    B : Tensor, shape (r, Cin, \*K), (B, r, Cin, \*K) or (D, r, Cin, \*K)
        With as many sets as A: shared, per sample or per block.
    base : Tensor, shape (Cout, Cin, \*K), optional
        Shared by all samples.

    Raises
    ------
    ShapeError
        When it is used: the factors, or the base, do not fit.

    References
    ----------
    Hu et al., LoRA, ICLR 2022.

    Examples
    --------
    >>> weight = LowRank(torch.tensor([[1.0], [2.0]]), torch.ones(1, 3, 1, 1))
    >>> weight.shape, weight.whole().flatten(1).tolist()
    ((2, 3, 1, 1), [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    """

    A: Tensor
    B: Tensor
    base: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole weight.

        Raises
        ------
        ShapeError
            The factors, or the base, do not fit.
        """
        shapes = tuple(self.A.shape), tuple(self.B.shape), None if self.base is None else tuple(self.base.shape)
        return _product(*shapes)

    @property
    def rank(self) -> int:
        """How many channels stand between the factors."""
        return self.A.shape[-1]

    @property
    def requires_grad(self) -> bool:
        """Whether gradients of any part are wanted."""
        return any(part is not None and part.requires_grad for part in self)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the whole weight."""
        return self.A.dtype

    def whole(self) -> Tensor:
        """Form the weight: ``(*shape)``."""
        shape = self.shape
        axes = self.A.dim() - 1
        A, B, base = self.A, self.B.flatten(axes), None if self.base is None else self.base.flatten(1)
        if base is None:
            return (A @ B).reshape(shape)
        return (torch.addmm(base, A, B) if axes == 1 else torch.baddbmm(base, A, B)).reshape(shape)

    def as_image(self) -> LowRank:
        """Return the weight of an image of one row, for that of a sequence."""
        base = None if self.base is None else self.base.unsqueeze(-2)
        return LowRank(self.A, self.B.unsqueeze(-2), base)


@measured_once
def _product(A: tuple[int, ...], B: tuple[int, ...], base: tuple[int, ...] | None) -> tuple[int, ...]:
    axes = Axes("LowRank")
    sets = "D " if len(A) == 3 else ""
    rest = f"Cin {KERNEL.get(len(B) - 2 - bool(sets), 'Kt Kh Kw')}".strip()
    axes.bind("A", A, f"{sets}Cout r")
    axes.bind("B", B, f"{sets}r {rest}")
    if base is not None:
        axes.bind("base", base, f"Cout {rest}")
    return *A[:-1], *B[len(A) - 1 :]
