"""Other packages on the same task, where they are installed; nothing here is a dependency."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["MISSING", "ChunkedByLoop", "hypernetwork"]

MISSING = "hypnettorch, of PyPI, is not installed: there are no rows against it. `pip install hypnettorch` brings it."


def hypernetwork() -> Any:
    """Return hypnettorch's chunked hypernetwork; ``None`` where the package is not installed."""
    with contextlib.suppress(ImportError):
        from hypnettorch.hnets import ChunkedHMLP

        return ChunkedHMLP
    return None


class ChunkedByLoop(nn.Module):
    """A network whose weights hypnettorch makes, in chunks of 64 by hidden layers of 128, and which runs by sample.

    The package makes a list of weights for each sample and has no layer that takes several sets, so that the network is
    called in a Python loop, as its documentation does for tasks.

    References
    ----------
    von Oswald et al., Continual learning with hypernetworks, ICLR 2020, by whose authors the package is.
    """

    def __init__(self, make: Any, network: nn.Module, context_dim: int, code_dim: int):
        super().__init__()
        parameters = {name: list(one.shape) for name, one in network.named_parameters()}
        self.names, self.encode = list(parameters), nn.Linear(context_dim, code_dim)
        sizes = {"chunk_size": 64, "chunk_emb_size": 16, "cond_in_size": code_dim, "layers": (128, 128)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.maker = make(list(parameters.values()), num_cond_embs=0, verbose=False, **sizes)
        self.networks = [network]  # whose own parameters are not trained

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        made = self.maker(cond_input=self.encode(context))
        sets = [dict(zip(self.names, one, strict=True)) for one in made]
        samples = zip(x.split(1), sets, strict=True)
        return torch.cat([torch.func.functional_call(self.networks[0], own, one) for one, own in samples])
