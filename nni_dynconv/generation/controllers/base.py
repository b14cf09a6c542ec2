"""The base of every controller: the hypernetwork that makes weights. What it makes is scaled in ``delta.py``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from ...settings import Nonlinearity, ScaleRule
from ...sites import Site

__all__ = ["Controller"]


class Controller(nn.Module, ABC):
    """Makes the weights of sites, out of a context or out of nothing.

    A subclass writes three methods: :meth:`bind` learns which sites there are and makes what it needs for them,
    :meth:`generate` makes their weights, :meth:`select` keeps what a frozen network needs. It makes values of unit
    variance at the start, uncorrelated among the inputs that an output sums over; the package scales each tensor by its
    fan-in, adds the base where there is one, and cuts the flat vector into tensors.
    """

    bound = False
    """Whether a mutator has it already; the package sets this."""
    scale_rule: ScaleRule = "hyperfan_in"
    """By which rule the package scales what it makes: :func:`nni_dynconv.generation.initialisation.scale_of`."""
    nonlinearity: Nonlinearity = "linear"
    """What stands between layers, for that scale."""
    architecture_dim = 0
    """How many of the code's last numbers are of an architecture; the package sets this before ``bind``."""

    @abstractmethod
    def bind(self, sites: Sequence[Site], context_dim: int | None) -> None:
        """Make parameters for these sites.

        Parameters
        ----------
        sites
            All sites of the space; their number and sizes should hardly change the number of parameters.
        context_dim
            Length of the code, or ``None`` where there is none. Codes are of any size:
            :func:`~nni_dynconv.controllers.pieces.context_map` brings them to one.
        """

    @abstractmethod
    def generate(self, sites: Sequence[Site], context: Tensor | None) -> list[Tensor]:
        """Make the weights of some sites at once: the same values as one by one, and the same at each call.

        A backward that runs a part of the forward again has them made again.

        Parameters
        ----------
        sites
            Some of those of :meth:`bind`.
        context
            ``(dim,)`` for one set of weights, ``(B, dim)`` for several: one a sample, or one a block of samples of the
            same context; or ``None``.

        Returns
        -------
        A flat vector a site, ``(N,)`` or ``(B, N)``, where ``N`` is ``site.num_generated``.
        """

    def module_for(self, site: Site) -> nn.Module | None:
        """Return a module that stands in for a site's op, the same at each call; ``None``: weights are made for the op.

        It is called as ``module(x, code)``, with the op's input and with what :meth:`generate` would be given: one code
        a sample, ``(B, dim)``, one for all, ``(dim,)``, or ``None``. It is a submodule of the controller, which
        :meth:`select` keeps, and of its own: neither the op's arguments nor base and delta are its affair.
        """
        return None

    @abstractmethod
    def select(self, sites: Sequence[Site]) -> None:
        """Forget what belongs to other sites: a frozen network is saved and read back as if bound to these only."""
