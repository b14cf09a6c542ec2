"""The architecture as something that the controller looks at: weights that are made for the network they stand in."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ScopeError
from ..settings import ArchitectureSettings, check_arguments

__all__ = ["ArchitectureEncoder", "FixedArchitecture", "Shares"]

Shares = Callable[[str], Tensor]
"""Gives for a label how much of each candidate, or of each input of an ``InputChoice``, takes part: ``(n,)``."""


class ArchitectureEncoder(nn.Module):
    r"""The code of an architecture: a linear map of what is chosen at each label.

    .. math:: \mathrm{code} = (b + \sum_{l=1}^{L} W_l \, s_l) / \sqrt{L}

    where :math:`s_l` is the one-hot vector of the choice at label :math:`l`, or several-hot where several inputs are
    chosen. Samplers that learn by gradient give shares with gradient: the probabilities (DARTS), or the
    straight-through one-hot vector (GDAS). So a site makes other weights in another architecture, and the architecture
    learns through the weights too.

    Parameters
    ----------
    dim
        Length of the code, 2 or more.

    Raises
    ------
    ConfigError
        ``dim`` is no whole number of 2 or more.

    References
    ----------
    Brock et al., SMASH: One-shot model architecture search through hypernetworks, ICLR 2018; Zhang et al., Graph
    hypernetworks for neural architecture search, ICLR 2019. The encoding here is neither of theirs.

    Examples
    --------
    >>> encoder = ArchitectureEncoder(4)
    >>> encoder.bind({"op": 2, "inputs": 3})
    >>> encoder({"op": torch.tensor([1.0, 0.0]), "inputs": torch.tensor([1.0, 0.0, 1.0])}.get).shape
    torch.Size([4])
    """

    def __init__(self, dim: int):
        super().__init__()
        check_arguments(self, ArchitectureSettings(dim))
        self.dim, self.out_dim = dim, dim
        self.sizes: dict[str, int] = {}

    @property
    def bound(self) -> bool:
        """Whether a mutator has it already."""
        return bool(self.sizes)

    def bind(self, sizes: Mapping[str, int]) -> None:
        """Tell the encoder which labels there are, and how many shares each has.

        Raises
        ------
        ConfigError
            There is no choice to encode, or another mutator has it already.
        """
        if self.bound:
            raise ConfigError("This ArchitectureEncoder serves another mutator already. Make one each.")
        if not sizes:
            raise ConfigError("`architecture` is given, but the space has no choice. Leave it out.")
        self.sizes = dict(sizes)
        self.linear = nn.Linear(sum(self.sizes.values()), self.dim)
        nn.init.normal_(self.linear.weight)  # a label's choice is one row: each weighs alike, however many there are

    def forward(self, shares: Shares | None) -> Tensor:  # -> dim
        """Encode the shares of all labels.

        Raises
        ------
        ScopeError
            Nothing tells which architecture runs.
        """
        if shares is None:
            raise ScopeError(
                "These weights are made for an architecture, and nothing tells which. Call the network through the "
                "mutator, or inside `with mutator.using(sample):`."
            )
        rows = torch.cat([shares(label).to(self.linear.weight) for label in self.sizes])
        return self.linear(rows) * len(self.sizes) ** -0.5

    def extra_repr(self) -> str:
        return f"dim={self.dim}, labels={list(self.sizes)}"


class FixedArchitecture(nn.Module):
    """The code of the one architecture of a frozen network; it is kept and does not learn.

    Parameters
    ----------
    code
        ``(dim,)``.
    """

    code: Tensor

    def __init__(self, code: Tensor):
        super().__init__()
        self.register_buffer("code", code.detach().clone())
        self.out_dim = len(code)

    def forward(self, shares: Shares | None = None) -> Tensor:
        return self.code
