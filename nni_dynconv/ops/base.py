"""The base of every op: it announces the weights it needs and takes them explicitly or from the open scope."""

from __future__ import annotations

import inspect
import sys
from abc import ABCMeta, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ContextError, ExportError, ParamsError, ShapeError, SpaceError, did_you_mean
from ..functional import form_all
from ..settings import Recipe, check_recipe
from ..sites import Order, WeightSpec, check_order, repeats_of, scope, split

__all__ = ["DynamicOp"]

RECIPE = tuple(one.name for one in fields(Recipe))


class _TakesMore(ABCMeta):
    """Lets every op take a recipe's settings, and ``nni.choice`` for any argument, without importing NNI for it."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if "nni.mutable" in sys.modules and any(map(_is_choice, (*args, *kwargs.values()))):
            from .choices import choose_arguments

            return choose_arguments(cls, args, kwargs)
        given = {name: kwargs.pop(name) for name in RECIPE if name in kwargs and not _takes(cls, name)}
        repeats = None if _takes(cls, "repeats") else kwargs.pop("repeats", None)
        op = super().__call__(*args, **kwargs)
        if given:
            op.recipe = check_recipe(given, f"`{cls.__name__}`")
        if repeats is not None:
            op.repeats = check_order(repeats, f"`{cls.__name__}`")
        return op


def _takes(cls: type, name: str) -> bool:
    """Whether an argument is the op's own."""
    return name in inspect.signature(cls.__init__).parameters  # type: ignore[misc]


def _is_choice(argument: Any) -> bool:
    mutable = sys.modules["nni.mutable"].Mutable
    if isinstance(argument, (tuple, list)) and any(map(_is_choice, argument)):
        raise SpaceError(
            f"A choice inside of an argument, {argument}, is not seen by NNI. Let the choice be of whole tuples: "
            f"`nni.choice(label, [(3, 3), (5, 5)])`."
        )
    return isinstance(argument, mutable) and not isinstance(argument, nn.Module)


class DynamicOp(nn.Module, metaclass=_TakesMore):
    """A functional operator in the shell of a module: it owns no generated weight.

    A subclass says what it needs (:meth:`weight_specs`) and what it does with it (:meth:`compute`). Where samples share
    sets of weights in blocks, a ``compute`` with an argument ``counts`` gets the whole batch, and one without it is
    called block by block.

    Every op also takes ``base=``, ``delta=`` and ``rank=``, the settings of a :class:`~nni_dynconv.settings.Recipe` of
    its own, which come before the mutator's; ``nni.choice`` among them lets the search decide. And it takes
    ``repeats=``, as of :func:`nni_dynconv.repeated`, where its network calls it with more samples than the forward has.
    """

    _takes_counts = False
    takes_factors = False
    """Whether :meth:`compute`, with an argument ``counts``, takes weights that are given by parts, such as
    :class:`~nni_dynconv.functional.LowRank`; a subclass with a ``compute`` of its own says so itself."""
    input_name = "input"
    """What torch's layers call their input."""
    recipe: Mapping[str, Any] = MappingProxyType({})
    """What it says of its own about base, delta and rank."""
    repeats: Order | None = None
    """How samples lie that it sees several times as often as the forward has them, where no block says so."""
    patch_grid: tuple[int, int] | None = None
    """Patches of the image, along its height and width, each with a set of its own, which :meth:`compute` takes with
    two more axes behind those of samples; ``None``: a set is for whole samples."""
    site: str | None = None
    """Name of the place where it stands; the mutator sets it. It survives NNI's freezing and copying."""
    caller: str = "mutator"
    """What its network is called through: a mutator, or, where it is frozen or loaded, the ``network`` itself."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "compute" in vars(cls) and "takes_factors" not in vars(cls):
            cls.takes_factors = False
        if {"compute", "forward"} & set(vars(cls)) and "static_layer" not in vars(cls):
            cls.static_layer = DynamicOp.static_layer  # type: ignore[method-assign]
        cls._takes_counts = "counts" in inspect.signature(cls.compute).parameters

    @abstractmethod
    def weight_specs(self) -> tuple[WeightSpec, ...]:
        """Return the tensors that :meth:`compute` takes, in order."""

    @abstractmethod
    def compute(self, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Apply weights; each is ``(*shape)``, shared, or ``(B, *shape)``, one set a sample.

        A third argument, ``counts: Sequence[int] | None = None``, makes it take ``(D, *shape)``, one set for each block
        of ``counts[d]`` consecutive samples; :mod:`nni_dynconv.functional` takes the same.
        """

    def static_layer(self, weights: Mapping[str, Tensor]) -> nn.Module:
        """Return an ordinary layer that does the same with one set of weights: they are its parameters.

        A subclass with a ``compute`` or ``forward`` of its own says so itself.

        Parameters
        ----------
        weights
            By name, each ``(*shape)``.

        Raises
        ------
        ExportError
            It has none.
        """
        raise ExportError(
            f"{self._where()} is a {type(self).__name__}, which does not say what ordinary layer it is with given "
            f"weights. Let it: `def static_layer(self, weights): ...` returns one."
        )

    @property
    def num_generated(self) -> int:
        """Number of values that one set of weights has."""
        return sum(spec.numel for spec in self.weight_specs())

    def forward(
        self,
        x: Any = None,
        params: Mapping[str, Tensor] | Tensor | None = None,
        counts: Sequence[int] | None = None,
        repeats: Order | None = None,
        **options: Any,
    ) -> Tensor:
        """Apply the op.

        Parameters
        ----------
        x
            ``(B, ...)``; also by the keyword of the layer that it stands for, :attr:`input_name`.
        params
            The weights: a mapping by name, each ``(*shape)``, ``(B, *shape)`` or ``(D, *shape)`` for D equal blocks of
            consecutive samples; or one flat vector ``(N,)``, ``(B, N)`` or ``(D, N)`` in the order of
            :meth:`weight_specs`; or ``None`` to take them from the open forward.
        counts
            Samples in each of the D blocks of ``params``, where they are not equal.
        repeats
            How samples lie, where weights come from the open forward and ``x`` has a multiple of its samples; before
            what a block or the op itself says.
        **options
            More of :meth:`compute`.

        Raises
        ------
        ScopeError
            ``params`` is ``None`` and no forward is open.
        ParamsError
            ``params`` are not what :meth:`weight_specs` asks for.
        ContextError
            ``x`` is no tensor, such as a pair with a context that nobody asked for.
        ShapeError
            The open forward has weights for other samples than ``x`` has, and nothing says whose they are.
        """
        x = options.pop(self.input_name, None) if x is None else x
        if not isinstance(x, Tensor):
            raise ContextError(_no_tensor(self._where(), x))
        if params is None:
            made = scope.ready_for(self, self.site, x)
            if made is not None:
                return made
            name, factors = type(self).__name__, self._wants_factors()
            weights, counts, batch = scope.weights_for(self, self.site, name, x, factors)
            if batch is not None and x.shape[0] != batch:
                return self._use_for_others(x, weights, counts, batch, repeats, options)
        elif isinstance(params, Tensor):
            weights = split(params, self.weight_specs(), self._where())
        else:
            weights = self._checked(params)
            weights = weights if self._wants_factors() else form_all(weights)
        return self._use(x, weights, counts, options)

    def _use(
        self, x: Tensor, weights: Mapping[str, Any], counts: Sequence[int] | None, options: Mapping[str, Any]
    ) -> Tensor:
        if counts is None and not self._takes_counts:
            counts = self._equal_blocks(x.shape[0], weights)
        if counts is None:
            return self.compute(x, weights, **options)
        if self._takes_counts:
            return self.compute(x, weights, counts, **options)  # type: ignore[call-arg]
        return self._by_blocks(x, weights, counts, **options)

    def _use_for_others(
        self,
        x: Tensor,
        weights: Mapping[str, Any],
        counts: Sequence[int] | None,
        batch: int,
        repeats: Order | None,
        options: Mapping[str, Any],
    ) -> Tensor:
        """Apply the weights of the forward's samples to an input with other ones."""
        if not any(len(weights[spec.name].shape) > len(spec.shape) for spec in self.weight_specs()):
            return self._use(x, weights, None, options)  # all samples share them
        if x.shape[0] == 1:  # so each sample shares it
            self._check_shared(x, batch)
            return self._use(x.expand(batch, *x.shape[1:]), weights, counts, options)
        told = repeats or scope.order_for(self) or self.repeats
        lie = repeats_of(self._where(), x.shape, batch, told if x.shape[0] else "tiled")
        if counts is None and _is_traced():
            sets = {spec.name: len(weights[spec.name].shape) > len(spec.shape) for spec in self.weight_specs()}
            whole = form_all(weights)
            own = {name: lie.rows(one) if sets[name] else one for name, one in whole.items()}
            return self._use(x, own, None, options)
        y = self._use(lie.gathered(x), weights, None if counts is None else lie.counts(counts), options)
        return lie.restored(y)

    def _check_shared(self, x: Tensor, batch: int) -> None:
        """Refuse a loop over samples, each of which would be taken for one that all share."""
        if self.site is not None and scope.is_shared_again(self.site):
            raise ShapeError(
                f"{self._where()}: its input {tuple(x.shape)} has one sample, again in this forward of {batch}, each "
                f"with weights of its own: whose is it? In a loop over samples, `op(x[i : i + 1])`, each would have "
                f"the weights of all: give the op the whole batch. If all share this input, say so: "
                f"`x.expand({batch}, ...)`."
            )

    def _wants_factors(self) -> bool:
        return (
            self.takes_factors and self._takes_counts and "compute" not in vars(self)
        )  # whoever replaced it, such as a diagnosis, reads tensors

    def _equal_blocks(self, B: int, weights: Mapping[str, Tensor]) -> list[int] | None:
        for spec in self.weight_specs():
            D = weights[spec.name].shape[0] if weights[spec.name].dim() > len(spec.shape) else B
            if D not in (0, 1, B) and B % D == 0:
                return [B // D] * D
        return None

    def _by_blocks(self, x: Tensor, weights: Mapping[str, Tensor], counts: Sequence[int], **options: Any) -> Tensor:
        rank = {spec.name: len(spec.shape) for spec in self.weight_specs()}
        parts = []
        for d, block in enumerate(x.split(list(counts))):
            own = {name: one[d] if one.dim() > rank[name] else one for name, one in weights.items()}
            parts.append(self.compute(block, own, **options))
        return torch.cat(parts)

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


def _is_traced() -> bool:
    """Whether a graph is made of this call, for any batch perhaps: blocks of samples would bind it."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


def _no_tensor(where: str, x: Any) -> str:
    """Say what is wrong with an input; of a pair, that a context is taken where there is an encoder."""
    found = f"{where}: its input is a {type(x).__name__}, but must be a tensor, (B, ...)."
    if not isinstance(x, (tuple, list)) or len(x) != 2:
        return found
    return (
        f"{found} If it is `(x, context)`, nobody asked for the context: give an encoder, "
        f"`context=VectorContext(D, dim)`, in a YAML under `context`, or call the network with `x` alone."
    )
