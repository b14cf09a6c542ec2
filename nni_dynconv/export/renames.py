"""Class paths that files of earlier versions hold, and where those classes live now: every rename stands here."""

from __future__ import annotations

__all__ = ["renamed"]

MODULES = {
    # of version 0.1.0
    "nni_dynconv.context": "nni_dynconv.generation.context",
    "nni_dynconv.controllers": "nni_dynconv.generation.controllers",
}
"""A module, or a package with all that was in it."""


def renamed(reference: str) -> str:
    """Return ``module:Class`` as it is written today.

    >>> renamed("nni_dynconv.controllers.chunked:ChunkedController")
    'nni_dynconv.generation.controllers.chunked:ChunkedController'
    >>> renamed("torch.nn.modules.linear:Linear")
    'torch.nn.modules.linear:Linear'
    """
    module, separator, name = reference.partition(":")
    for old, new in MODULES.items():
        if module == old or module.startswith(f"{old}."):
            inside = module.removeprefix(old)
            return f"{new}{inside}{separator}{name}"
    return reference
