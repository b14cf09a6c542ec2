"""Which sites belong together: those that differ in their kernels alone, so that small ones may lie in large ones."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

from ...sites import Site

__all__ = ["leaders_of", "nest_of"]


def nest_of(site: Site) -> Hashable:
    """Return what sites have in common that belong together.

    They are of one op and one owner, with tensors of the same names and channels: the candidates of one choice whose
    names are alike but for their numbers, or the variants of one op with ``nni.choice`` arguments. Numbers inside a
    candidate, which tell its layers apart, count; so does the number of a second place with the same label.

    Examples
    --------
    >>> from nni_dynconv.spec import WeightSpec
    >>> def site(name, kernel, Cout=8):
    ...     return Site(name, "DynamicConv2d", (WeightSpec("weight", (Cout, 4, kernel, kernel), 4 * kernel**2),))
    >>> nest_of(site("body/conv3", 3)) == nest_of(site("body/conv5", 5))
    True
    >>> nest_of(site("stem.kernel=3,out=8", 3)) == nest_of(site("stem.kernel=7,out=8", 7))
    True
    >>> nest_of(site("body/conv3", 3)) == nest_of(site("body/conv5", 5, Cout=16))
    False
    >>> nest_of(site("layers.0", 3)) == nest_of(site("layers.1", 5))
    False
    """
    name, _, copy = site.name.partition("#")
    owner, slash, inside = name.rpartition("/")
    candidate, dot, path = inside.partition(".") if slash else ("", "", inside)
    path = re.sub(r"=[^=]*(?=,[^,=]*=|$)", "", path)  # values of `label=value,label=value`
    channels = tuple((spec.name, spec.kind, len(spec.shape), spec.shape[:2]) for spec in site.specs)
    return owner, re.sub(r"\d+", "", candidate), dot, path, copy, site.op, channels


def leaders_of(sites: Sequence[Site]) -> list[int]:
    """Return for each site the number of the first that it belongs together with; of itself where there is none.

    Two sites of equal shapes do not belong together: their weights would be equal.

    Examples
    --------
    >>> from nni_dynconv.spec import WeightSpec
    >>> names = {"body/conv3": 3, "body/dilated3": 3, "body/conv5": 5, "body/conv3#2": 3}
    >>> leaders_of([Site(n, "DynamicConv2d", (WeightSpec("weight", (8, 8, k, k), 9),)) for n, k in names.items()])
    [0, 1, 0, 3]
    """
    nests: dict[Hashable, list[tuple[int, set[Hashable]]]] = {}
    leaders = []
    for number, site in enumerate(sites):
        shapes = tuple(spec.shape for spec in site.specs)
        known = nests.setdefault(nest_of(site), [])
        leader, taken = next((nest for nest in known if shapes not in nest[1]), (number, set()))
        if leader == number:
            known.append((leader, taken))
        taken.add(shapes)
        leaders.append(leader)
    return leaders
