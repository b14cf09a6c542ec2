"""A base whose output channels are scaled, as FiLM does."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import ShapeError
from .shapes import measured_once

__all__ = ["Scaled"]


class Scaled(NamedTuple):
    r"""The weight of a convolution, or of a linear map, as a shared base with a factor for each output channel.

    .. math:: W_d[o] = s_d[o] \, W_0[o]

    The convolutions of :mod:`nni_dynconv.functional`, transposed ones too, and its ``linear`` take it in the place of a
    weight. Where it pays they convolve all samples with the base and scale what comes out, and never hold
    :math:`W_d`.

    Parameters
    ----------
    base : Tensor, shape (Cout, Cin/G, \*K), transposed (Cin, Cout/G, \*K)
        Shared by all samples.
    scale : Tensor, shape (Cout,), (B, Cout) or (D, Cout)
        Shared, per sample or per block.
    transposed : int
        Groups of a transposed convolution; 0 for all others.

    Raises
    ------
    ShapeError
        When it is used: the scale does not fit.

    References
    ----------
    Perez et al., FiLM, AAAI 2018.

    Examples
    --------
    >>> weight = Scaled(torch.ones(2, 1, 1), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    >>> weight.shape, weight.whole().flatten(1).tolist()
    ((2, 2, 1, 1), [[1.0, 2.0], [3.0, 4.0]])
    """

    base: Tensor
    scale: Tensor
    transposed: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole weight.

        Raises
        ------
        ShapeError
            The scale does not fit.
        """
        shapes = tuple(self.base.shape), tuple(self.scale.shape), self.transposed
        return _scaled(*shapes)

    @property
    def rank(self) -> int:
        """One factor a channel."""
        return 1

    @property
    def requires_grad(self) -> bool:
        """Whether gradients of any part are wanted."""
        return self.base.requires_grad or self.scale.requires_grad

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the whole weight."""
        return self.base.dtype

    def whole(self) -> Tensor:
        """Form the weight: ``(*shape)``."""
        lead, ones = self.shape[: self.scale.dim() - 1], [1] * (self.base.dim() - 2)
        if not self.transposed:
            return self.base * self.scale.reshape(*self.scale.shape, 1, *ones)
        groups = self.transposed
        scale = self.scale.reshape(*lead, groups, 1, -1, *ones)  # groups Cin/G Cout/G *K
        return (self.base.unflatten(0, (groups, -1)) * scale).flatten(len(lead), len(lead) + 1)

    def as_image(self) -> Scaled:
        """Return the weight of an image of one row, for that of a sequence."""
        return self._replace(base=self.base.unsqueeze(-2))


@measured_once
def _scaled(base: tuple[int, ...], scale: tuple[int, ...], transposed: int) -> tuple[int, ...]:
    if len(base) < 2 or len(scale) not in (1, 2):
        raise ShapeError(
            f"`Scaled`: `base` is {base} and `scale` {scale}, but they must be Cout Cin/G *K and [D] Cout."
        )
    outputs = base[1] * transposed if transposed else base[0]
    if scale[-1] != outputs:
        raise ShapeError(f"`Scaled`: `scale` is {scale}, but `base`, {base}, has {outputs} output channels.")
    return *scale[:-1], *base
