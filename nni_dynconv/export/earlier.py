"""What tensors of earlier files are called today, and their shapes: every change of them stands here."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..generation import WeightSource

__all__ = ["FLAT_BASES", "tensors_of_today"]

FLAT_BASES = 2
"""The last format in which the base of a site was one flat vector, by number."""


def tensors_of_today(
    tensors: Mapping[str, Tensor], source: WeightSource, prefix: str, written_as: int
) -> dict[str, Tensor]:
    """Return the tensors of a file as this version has them.

    Parameters
    ----------
    source
        What they are of: its sites tell how the flat bases are cut.
    prefix
        Of the source, in their names.
    written_as
        Format of the file.

    Raises
    ------
    ParamsError
        A base is of another length.
    """
    found = dict(tensors)
    if written_as > FLAT_BASES:
        return found
    based = [site for name, site in source.sites.items() if name in source.bases]
    for row, site in enumerate(based):
        flat = found.pop(f"{prefix}bases.{row}", None)
        if flat is not None:
            found |= {f"{prefix}bases.{name}": one for name, one in source.bases.stored(site, flat).items()}
    return found
