"""Modules whose tensors an earlier version had otherwise: a state of then is read as one of today."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["Upgrading", "upgraded"]


class Upgrading(nn.Module):
    """A module that reads states of earlier versions: what is missing there is what it did then."""

    @abstractmethod
    def upgrade(self, state: dict[str, Any], prefix: str) -> None:
        """Let what a state has of this module be what this version has, with the same outputs.

        Parameters
        ----------
        state
            Changed in place; a state of today stays as it is.
        prefix
            Of the module's names in it.
        """

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *options: Any) -> None:
        self.upgrade(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *options)


def upgraded(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a module's state of any version as this version has it.

    Examples
    --------
    >>> upgraded(nn.Linear(1, 1), {})
    {}
    """
    found = dict(state)
    for name, one in module.named_modules():
        if isinstance(one, Upgrading):
            one.upgrade(found, f"{name}." if name else "")
    return found
