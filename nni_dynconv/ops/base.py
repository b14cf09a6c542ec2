"""The base of every op: it announces the weights it needs and takes them explicitly or from the open scope."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from .. import scope
from ..errors import ParamsError, did_you_mean
from ..spec import WeightSpec, split

__all__ = ["DynamicOp"]


class DynamicOp(nn.Module, ABC):
    """A functional operator in the shell of a module: it owns no generated weight.

    A subclass says what it needs (:meth:`weight_specs`) and what it does with it (:meth:`compute`).
    """

    site: str | None = None
    """Name of the place where it stands; the mutator sets it. It survives NNI's freezing and copying."""

    @abstractmethod
    def weight_specs(self) -> tuple[WeightSpec, ...]:
        """Return the tensors that :meth:`compute` takes, in order."""

    @abstractmethod
    def compute(self, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Apply weights; each is ``(*shape)``, shared, or ``(B, *shape)``, one set a sample."""

    @property
    def num_generated(self) -> int:
        """Number of values that one set of weights has."""
        return sum(spec.numel for spec in self.weight_specs())

    def forward(self, x: Tensor, params: Mapping[str, Tensor] | Tensor | None = None) -> Tensor:
        """Apply the op.

        Parameters
        ----------
        x
            ``(B, ...)``.
        params
            The weights: a mapping by name, each ``(*shape)`` or ``(B, *shape)``; or one flat vector ``(N,)`` or
            ``(B, N)`` in the order of :meth:`weight_specs`; or ``None`` to take them from the open forward.

        Raises
        ------
        ScopeError
            ``params`` is ``None`` and no forward is open.
        ParamsError
            ``params`` are not what :meth:`weight_specs` asks for.
        """
        if params is None:
            return self.compute(x, scope.weights_for(self, self.site, type(self).__name__))
        if isinstance(params, Tensor):
            return self.compute(x, split(params, self.weight_specs(), self._where()))
        return self.compute(x, self._checked(params))

    def _where(self) -> str:
        return f"`{self.site}`" if self.site else type(self).__name__

    def _checked(self, params: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        specs = {spec.name: spec for spec in self.weight_specs()}
        for name in params:
            if name not in specs:
                raise ParamsError(f"{self._where()} has no weight `{name}`.{did_you_mean(name, specs)}")
        for name, spec in specs.items():
            if name not in params:
                raise ParamsError(f"{self._where()} needs `{name}` {spec.shape}, but params have only {list(params)}.")
            shape = tuple(params[name].shape)
            if shape not in (spec.shape, (*shape[:1], *spec.shape)):
                raise ParamsError(
                    f"{self._where()}: `{name}` must be {spec.shape} or (B, {', '.join(map(str, spec.shape))}), "
                    f"but is {shape}."
                )
        return params
