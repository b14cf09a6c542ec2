"""The bases of a network's sites: tensors that are learned, or given, and stand as a layer of torch would have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from ..sites import Site, WeightSpec, split

__all__ = ["Bases", "stored_name", "values_of"]

AFFINE = {"scale": "weight", "shift": "bias"}
"""How a normalisation of torch calls its affine map; the op's scale is the distance from one."""


class Bases(nn.Module):
    """A parameter for each tensor of a base, under the name of its layer: ``layer1.0.conv.weight``.

    ``state_dict``, groups of an optimizer, pruning and quantisation so see names and shapes as before a network was
    lifted. The affine map of a normalisation stands as ``weight`` and ``bias`` too.

    Parameters
    ----------
    sites
        Those that have a base.
    values
        Of each, by name of the spec, as the op has them; or parameters, which are taken as they are.
    """

    def __init__(self, sites: Sequence[Site], values: Sequence[Mapping[str, Tensor]]):
        super().__init__()
        self._places: dict[str, dict[str, tuple[nn.Module, str]]] = {}
        for site, tensors in zip(sites, values, strict=True):
            holder = self._holder(site.name)
            self._places[site.name] = {spec.name: (holder, stored_name(site, spec)) for spec in site.specs}
            for spec in site.specs:
                value = tensors[spec.name]
                kept = value if isinstance(value, nn.Parameter) else nn.Parameter(_stored(spec, value).contiguous())
                holder.register_parameter(stored_name(site, spec), kept)

    def _holder(self, path: str) -> nn.Module:
        """Return the module at a path, made where it is missing; parts of paths may be any words, also ``type``."""
        holder: nn.Module = self
        for part in path.split("."):
            if part not in holder._modules:
                holder._modules[part] = nn.Module()
            holder = holder._modules[part]  # type: ignore[assignment]
        return holder

    def __contains__(self, site: object) -> bool:
        return site in self._places

    def parameters_of(self, site: str) -> dict[str, nn.Parameter]:
        """Return what is stored for a site, by name of the spec."""
        return {name: getattr(holder, key) for name, (holder, key) in self._places[site].items()}

    def names_of(self, site: str) -> dict[str, str]:
        """Return how ``state_dict`` calls what is stored for a site, by name of the spec."""
        return {name: f"{site}.{key}" for name, (_, key) in self._places[site].items()}

    def stored(self, site: Site, values: Mapping[str, Tensor] | Tensor) -> dict[str, Tensor]:
        """Return a base as ``state_dict`` has it, of what the op has: by name of the spec, or in one flat vector."""
        own = split(values, site.specs, f"The base of `{site.name}`") if isinstance(values, Tensor) else values
        names = self.names_of(site.name)
        return {names[spec.name]: _stored(spec, own[spec.name]) for spec in site.specs}

    def select(self, sites: Iterable[Site]) -> Bases:
        """Return the bases of some sites, with the same parameters."""
        kept = [site for site in sites if site.name in self]
        return Bases(kept, [self.parameters_of(site.name) for site in kept])


def values_of(site: Site, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a base as the op has it, of what is stored."""
    return {spec.name: stored[spec.name] - 1 if spec.kind == "scale" else stored[spec.name] for spec in site.specs}


def stored_name(site: Site, spec: WeightSpec) -> str:
    """Return how a tensor is called where it is stored.

    >>> scale, shift = WeightSpec("scale", (4,), 1, "scale"), WeightSpec("shift", (4,), 1, "shift")
    >>> stored_name(Site("norm", "DynamicBatchNorm2d", (scale, shift)), scale)
    'weight'
    """
    kinds = {one.kind for one in site.specs if one.name == one.kind}
    return AFFINE[spec.name] if "scale" in kinds and len(kinds) == len(site.specs) else spec.name


def _stored(spec: WeightSpec, value: Tensor) -> Tensor:
    return value + 1 if spec.kind == "scale" else value
