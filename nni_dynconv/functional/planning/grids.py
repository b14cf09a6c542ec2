"""Sets of weights for the patches of an image: a grid of them, for all samples, for each, or for each block."""

from __future__ import annotations

from collections.abc import Sequence

from ..checks import Axes
from .geometry import Sizes
from .sets import Counts, counts_of, lead_name

__all__ = ["bind_grid", "check_grid", "starts"]

GRID = ("Gh", "Gw")


def bind_grid(
    axes: Axes, weight: Sequence[int], bias: Sequence[int] | None, names: str, counts: Sequence[int] | None
) -> tuple[bool, Counts | None]:
    """Bind weight and bias, whose axes ``Gh Gw`` come behind those of sets of samples, where there are any.

    Returns
    -------
    Whether samples have weights of their own, and the samples of each set, where that is neither one nor all.

    Raises
    ------
    ShapeError
        An axis does not fit, or the sets cannot be dealt out to the ``B`` samples.
    """
    per_sample = len(weight) == len(names.split()) + 3
    lead = f"{lead_name(axes, weight[0])} " if per_sample else ""
    axes.bind("weight", weight, f"{lead}Gh Gw {names}")
    for name in GRID:
        axes.check_whole(name, axes[name])
    own = counts_of(axes, "weight", weight[0], counts) if per_sample else None
    if bias is not None:
        given = {3: "Gh Gw Cout", 4: f"{lead or 'B '}Gh Gw Cout"}
        axes.bind("bias", bias, given.get(len(bias), "Cout"))
    return per_sample, own


def check_grid(axes: Axes, space: Sequence[str], out: Sizes) -> Sizes:
    """Return the grid; refuse one with more patches along an axis than the output has places.

    Raises
    ------
    ShapeError
        In words.
    """
    for name, axis, size in zip(GRID, space, out, strict=True):
        if axes[name] > size:
            axes.fail(f"axis `{name}` has {axes[name]} patches, but the output has only {size} places along `{axis}`.")
    return tuple(axes[name] for name in GRID)


def starts(size: int, patches: int) -> list[int]:
    """Return where each patch begins, and where the last ends: sizes differ by one place at most.

    Examples
    --------
    >>> starts(8, 2), starts(7, 3)
    ([0, 4, 8], [0, 2, 4, 7])
    """
    return [size * one // patches for one in range(patches + 1)]
