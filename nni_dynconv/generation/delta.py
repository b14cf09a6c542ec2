"""Base and delta: what the controller is asked for at a site, and how an op's tensors come out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..functional import Composed, LowRank, Mixed, Scaled, form_all
from ..settings import Recipe
from ..sites import Site, WeightSpec, split
from .controllers import Mixture
from .factoring import factors_of, multiplied

__all__ = ["asked_of", "combine", "combine_factored", "combine_mixed", "combine_scaled"]


def asked_of(site: Site, recipe: Recipe) -> Site:
    """Return what the controller is asked for: a site of the same name, with the factors of its tensors.

    ``scale``: one value for each output channel of a weight. ``low_rank``: ``A (Cout, r)`` and ``B (r, ...)``, which
    keeps the axes of the kernel. A weight of which they would not be smaller is asked for in full; so are biases,
    affine maps and depthwise kernels, whose channels would else share ``r`` kernels.

    Examples
    --------
    >>> site = Site("conv", "DynamicConv2d", (WeightSpec("weight", (8, 16, 3, 3), 144), WeightSpec("bias", (8,), 144)))
    >>> [(one.name, one.shape) for one in asked_of(site, Recipe("learned", "low_rank", rank=2)).specs]
    [('weight.A', (8, 2)), ('weight.B', (2, 16, 3, 3)), ('bias', (8,))]
    >>> asked_of(site, Recipe("learned", "none")).num_generated
    0
    """
    return replace(site, specs=tuple(factor for spec in site.specs for factor in _factors(spec, recipe)))


def combine(
    site: Site,
    asked: Site,
    recipe: Recipe,
    made: Tensor | None,
    std: Mapping[str, float],
    base: Mapping[str, Tensor] | None = None,
    factor: Tensor | None = None,
) -> dict[str, Tensor]:
    r"""Return an op's tensors.

    .. math::
        W = b + f \, \sigma \, d \qquad W = b + f \, \sigma \, A B / \sqrt{r} \qquad W = b \, (1 + f \, s)

    so that values of unit variance make a delta of the standard deviation :math:`\sigma`.

    Parameters
    ----------
    asked
        Of the site and its recipe: :func:`asked_of`.
    made
        ``(N,)`` or ``(B, N)``, what the controller made of it; ``None`` where that is nothing.
    std
        Standard deviation of each of the site's tensors.
    base
        Each of the site's tensors, or ``None``; then the factor is one.
    factor
        A scalar.

    Returns
    -------
    Tensors by name, ``(*shape)`` or ``(B, *shape)``.

    References
    ----------
    As of :class:`~nni_dynconv.settings.recipe.Recipe`.
    """
    if made is None:
        return {} if base is None else dict(base)
    if recipe.delta == "scale" and base is not None and factor is not None:
        return dict(form_all(combine_scaled(site, asked, made, std, base, factor)))
    whole = multiplied(made, site, asked) if recipe.delta == "low_rank" and asked.specs != site.specs else made
    deltas, bases = split(whole, site.specs), base or {}
    return {name: _add(bases.get(name), std[name], factor, delta) for name, delta in deltas.items()}


def combine_factored(
    site: Site,
    own: Site,
    made: Tensor,
    std: Mapping[str, float],
    base: Mapping[str, Tensor] | None = None,
    factor: Tensor | None = None,
) -> dict[str, Tensor | Composed]:
    """Return an op's tensors as :func:`combine` does, with products left as factors where an op can apply them.

    Parameters
    ----------
    own
        The site with the factors of its tensors, which ``made`` are the values of.
    made
        ``(N,)`` or ``(B, N)``.
    std, base, factor
        As of :func:`combine`.
    """
    parts, bases = split(made, own.specs), base or {}
    return {spec.name: _factored(spec, parts, std[spec.name], bases.get(spec.name), factor) for spec in site.specs}


def combine_scaled(
    site: Site, asked: Site, made: Tensor, std: Mapping[str, float], base: Mapping[str, Tensor], factor: Tensor
) -> dict[str, Tensor | Composed]:
    """Return an op's tensors as :func:`combine` does, with weights as a base and a scale of its channels.

    Biases and affine maps have a delta of every value.
    """
    parts = split(made, asked.specs)
    tensors: dict[str, Tensor | Composed] = {}
    for spec in site.specs:
        own = base[spec.name]
        if spec.name in parts:
            tensors[spec.name] = _add(own, std[spec.name], factor, parts[spec.name])
        else:
            tensors[spec.name] = Scaled(own, 1 + factor * parts[f"{spec.name}.scale"], spec.transposed)
    return tensors


def combine_mixed(
    site: Site,
    mixture: Mixture,
    std: Mapping[str, float],
    base: Mapping[str, Tensor] | None = None,
    factor: Tensor | None = None,
) -> dict[str, Tensor | Composed]:
    """Return an op's tensors as :func:`combine` does, as mixtures: the scale goes into the shares, which are few."""
    bank, bases = split(mixture.bank, site.specs), base or {}
    shares = mixture.shares if factor is None else mixture.shares * factor
    tensors: dict[str, Tensor | Composed] = {}
    for spec in site.specs:
        size = std[spec.name] / (1.0 if mixture.stds is None else mixture.stds[spec.name])
        own = shares if size == 1.0 else shares * size
        if spec.kind == "weight":
            tensors[spec.name] = Mixed(own, bank[spec.name], bases.get(spec.name))
        else:
            delta = (own @ bank[spec.name].flatten(1)).unflatten(-1, spec.shape)
            tensors[spec.name] = delta if base is None else delta + bases[spec.name]
    return tensors


def _factored(
    spec: WeightSpec, parts: Mapping[str, Tensor], std: float, base: Tensor | None, factor: Tensor | None
) -> Tensor | LowRank:
    if spec.name in parts:
        return _add(base, std, factor, parts[spec.name])
    A, B = parts[f"{spec.name}.A"], parts[f"{spec.name}.B"]
    scale = std * A.shape[-1] ** -0.5
    weight = LowRank(A * (scale if factor is None else scale * factor), B, None if factor is None else base)
    return weight if spec.groups == 1 and not spec.transposed else weight.whole()


def _factors(spec: WeightSpec, recipe: Recipe) -> tuple[WeightSpec, ...]:
    if recipe.delta == "none":
        return ()
    if recipe.delta == "scale" and spec.kind == "weight":
        return (WeightSpec(f"{spec.name}.scale", (spec.outputs,), 1, "scale"),)
    return factors_of(spec, recipe.rank) if recipe.delta == "low_rank" else (spec,)


def _add(base: Tensor | None, std: float, factor: Tensor | None, delta: Tensor) -> Tensor:
    if base is None or factor is None:
        return std * delta
    return torch.addcmul(base, factor, delta, value=std)
