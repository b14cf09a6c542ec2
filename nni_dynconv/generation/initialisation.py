"""Initialisation: how large generated weights and learned bases are at the start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..settings import Nonlinearity, ScaleRule
from ..sites import Site, WeightSpec

__all__ = ["Scales", "base_of", "scale_of", "stds_of"]


def scale_of(site: Site, rule: ScaleRule = "hyperfan_in", nonlinearity: Nonlinearity = "linear") -> Tensor:
    r"""Return the standard deviation that each value of a site has at the start, flat, ``(N,)``.

    Controllers make values of unit variance, which are multiplied by it. It comes from the shape of each site's own
    tensors, so that whatever kernel or width a sample chooses, its outputs are of the same size.

    ``hyperfan_in`` keeps the size of what goes forward through layers with a nonlinearity of gain :math:`g` between
    them, as :func:`torch.nn.init.calculate_gain` has it: 1 where there is none, :math:`\sqrt{2}` for a ReLU, without
    which a plain stack of ReLU layers loses half of the variance in each:

    .. math:: \mathrm{Var}(W) = g^2 / \mathrm{fan_{in}}, \quad \mathrm{Var}(b) = 1 / (3 \, \mathrm{fan_{in}})

    ``hyperfan_out`` keeps the size of the gradients that go backward:

    .. math:: \mathrm{Var}(W) = g^2 / \mathrm{fan_{out}}, \quad
              \mathrm{Var}(b) = \max(1 / (3 \, \mathrm{fan_{in}}), \, 1 - \mathrm{fan_{in}} / \mathrm{fan_{out}})

    ``ghn`` is the normalisation of graph hypernetworks, where a ReLU follows:

    .. math:: \mathrm{Var}(W) = 2 / \mathrm{fan_{in}}, \quad \mathrm{Var}(b) = 0.2^2

    ``torch`` is as large as the weights and biases that torch's own layers start with, by which outputs become smaller
    from layer to layer where no normalisation follows; shallow networks and those with a residual path train well so:

    .. math:: \mathrm{Var}(W) = \mathrm{Var}(b) = 1 / (3 \, \mathrm{fan_{in}})

    Affine maps near the identity have 0.1, with ``ghn`` 0.25 for the scale and 0.2 for the shift.

    Raises
    ------
    ConfigError
        The rule needs ``fan_out``, and an op does not give it; or there is a nonlinearity, which the rule does not ask
        for.

    Notes
    -----
    Of an op with several weights the first has the gain: the nonlinearity stands before the op.
    Chang et al. divide the variance by 2 where biases are made too, which take the other half of it under hyperfan-in.
    Here weights keep all of it, and a bias is of the size of torch's: in a convolution it is a constant over all places
    and no noise, and a network whose biases are as large as its signals forgets its input layer by layer.
    Under hyperfan-out theirs is 0 where ``fan_in`` is not below ``fan_out``, and learns from there. Here the scale
    remains a factor, with which 0 would remain 0: so it is no less than under hyperfan-in.
    Knyazev et al. bound biases and the affine maps of normalisations (``tanh(0.2 p)``, ``2 sigmoid(0.5 p)``); ours have
    the slope of these functions at zero, without the bound. A depthwise kernel has 1 instead of 2 there, as here.

    References
    ----------
    Chang et al., Principled weight initialization for hypernetworks, ICLR 2020, section 4; Knyazev et al., Parameter
    prediction for unseen deep architectures, NeurIPS 2021, section 4 (GHN-2).

    Examples
    --------
    >>> conv = Site("conv", "DynamicConv2d", (WeightSpec("weight", (8, 1, 2, 2), fan_in=4, fan_out=32),))
    >>> scale_of(conv)[:2], scale_of(conv, "hyperfan_out").square()[:2]
    (tensor([0.5000, 0.5000]), tensor([0.0312, 0.0312]))
    """
    stds = stds_of(site, rule, nonlinearity)
    return torch.cat([torch.full((spec.numel,), stds[spec.name]) for spec in site.specs])


def stds_of(site: Site, rule: ScaleRule = "hyperfan_in", nonlinearity: Nonlinearity = "linear") -> dict[str, float]:
    """Return the standard deviation of each tensor of a site, by name, as :func:`scale_of` does of each value."""
    variances = {spec.name: _VARIANCES[rule](spec, site) for spec in site.specs}
    if nonlinearity != "linear":
        if not rule.startswith("hyperfan"):
            raise ConfigError(
                f"`nonlinearity` is '{nonlinearity}', but `scale_rule` is '{rule}', which has one size whatever stands "
                f"between layers. Take 'hyperfan_in' or 'hyperfan_out', or leave `nonlinearity` out."
            )
        first = next((spec.name for spec in site.specs if spec.kind == "weight"), None)
        if first is not None:
            variances[first] *= nn.init.calculate_gain(nonlinearity) ** 2
    return {name: variance**0.5 for name, variance in variances.items()}


def _hyperfan_in(spec: WeightSpec, site: Site) -> float:
    divisors = {"weight": 1.0, "bias": 3.0, "scale": 100.0, "shift": 100.0}
    return 1 / (divisors[spec.kind] * spec.fan_in)


def _hyperfan_out(spec: WeightSpec, site: Site) -> float:
    if spec.kind in ("scale", "shift"):
        return 0.01
    if spec.fan_out is None:
        raise ConfigError(
            f"`scale_rule` `hyperfan_out` needs to know how many outputs one input reaches, but `{spec.name}` of site "
            f"`{site.name}` ({site.op}) does not tell. Give its WeightSpec a `fan_out`, or take `hyperfan_in`."
        )
    if spec.kind == "weight":
        return 1 / spec.fan_out
    return max(_hyperfan_in(spec, site), 1 - spec.fan_in / spec.fan_out)


def _ghn(spec: WeightSpec, site: Site) -> float:
    if spec.kind != "weight":
        return 0.25**2 if spec.kind == "scale" else 0.2**2
    depthwise = spec.groups > 1 and spec.shape[1] == 1
    return (1 if depthwise else 2) / spec.fan_in


def _torch(spec: WeightSpec, site: Site) -> float:
    return 1 / (3 * spec.fan_in) if spec.kind == "weight" else _hyperfan_in(spec, site)


class Scales(nn.Module):
    """What :func:`scale_of` gives for several sites, by row; it moves with its module and is no part of its state."""

    def __init__(self, scales: Sequence[Tensor]):
        super().__init__()
        for row, scale in enumerate(scales):
            self.register_buffer(str(row), scale, persistent=False)

    def __getitem__(self, row: int) -> Tensor:
        scale: Tensor = getattr(self, str(row))
        return scale

    def __iter__(self) -> Iterator[Tensor]:
        return self.buffers()


def base_of(site: Site, rule: ScaleRule = "hyperfan_in", nonlinearity: Nonlinearity = "linear") -> Tensor:
    """Draw a learned base, flat, ``(N,)``: uniform, of the standard deviation of :func:`scale_of`.

    So a base alone, or one that a delta is added to or multiplies, gives outputs as large as weights without a base do.
    The affine map of a normalisation is the identity.

    Notes
    -----
    Under ``torch`` it is drawn as a layer of torch draws its own.
    """
    is_drawn = torch.cat([torch.full((spec.numel,), float(spec.kind in ("weight", "bias"))) for spec in site.specs])
    drawn = torch.empty(len(is_drawn)).uniform_(-(3**0.5), 3**0.5)
    return is_drawn * scale_of(site, rule, nonlinearity) * drawn


_VARIANCES = {"hyperfan_in": _hyperfan_in, "hyperfan_out": _hyperfan_out, "ghn": _ghn, "torch": _torch}
