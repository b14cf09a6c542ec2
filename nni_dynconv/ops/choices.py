"""Ops with ``nni.choice`` among their arguments. It imports NNI, which networks read from a file do without.

Of the ops only their constructors are known here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.mutable import Categorical, Mutable, ensure_frozen
from nni.nas.nn.pytorch.base import MutableModule
from nni.nas.space import current_model
from torch import Tensor, nn

from ..errors import SampleError, ScopeError, ShapeError, SpaceError
from ..sites import scope

__all__ = ["ChoiceOp", "choose_arguments"]

MOST_VARIANTS = 256


def choose_arguments(cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> nn.Module:
    """Make an op of whose arguments some are chosen; where NNI has chosen already, just that one."""
    sample = current_model()
    return ChoiceOp(cls, args, kwargs) if sample is None else _make(cls, args, kwargs, sample)


def _make(cls: type[nn.Module], args: tuple[Any, ...], kwargs: dict[str, Any], sample: Mapping[str, Any]) -> nn.Module:
    frozen = [ensure_frozen(one, sample=dict(sample)) for one in args]
    return cls(*frozen, **{name: ensure_frozen(one, sample=dict(sample)) for name, one in kwargs.items()})


class ChoiceOp(MutableModule):
    """A dynamic op whose arguments are chosen: a variant of the op for each combination of its choices.

    It is what ``DynamicConv2d(16, nni.choice("out", [16, 32]), 3)`` makes. Each variant is a site of its own, with as
    many weights as its arguments need, and with ordinary state, such as a normalisation, of its own. As with NNI's own
    parametrised modules, a label may stand at several places, and an argument may be an expression of choices.

    Parameters
    ----------
    cls
        The op's class.
    args, kwargs
        Its arguments.

    Raises
    ------
    SpaceError
        There are more than 256 combinations, one cannot be built, or an argument is not chosen among candidates.

    References
    ----------
    Yu et al., Slimmable neural networks, ICLR 2019 (a normalisation for each width).

    Examples
    --------
    >>> import nni
    >>> from nni_dynconv.ops import DynamicConv2d
    >>> conv = DynamicConv2d(16, nni.choice("out", [16, 32]), nni.choice("kernel", [3, 5]), bias=False)
    >>> conv.at({"out": 32, "kernel": 5}).num_generated == 32 * 16 * 25
    True
    """

    def __init__(self, cls: type[nn.Module], args: tuple[Any, ...], kwargs: dict[str, Any]):
        super().__init__()
        self.op = cls.__name__
        choices: dict[str, Any] = {}
        for argument in (*args, *kwargs.values()):
            if isinstance(argument, Mutable) and not isinstance(argument, nn.Module):
                choices |= self.add_mutable(argument).simplify()
        self.candidates = {label: _candidates(cls, label, one) for label, one in choices.items()}
        count = math.prod(map(len, self.candidates.values()))
        if count > MOST_VARIANTS:
            raise SpaceError(
                f"{self.op} with the choices {list(choices)} has {count} variants, more than {MOST_VARIANTS}. Give it "
                f"fewer candidates, or let arguments share a label."
            )
        combinations = [
            dict(zip(choices, values, strict=True)) for values in itertools.product(*self.candidates.values())
        ]
        if len({_key(sample) for sample in combinations}) < count:
            raise SpaceError(
                f"{self.op} has candidates that are written alike, in {self.candidates}: a dot in a label or a "
                f"candidate is written `_`. Name them apart."
            )
        self.variants = nn.ModuleDict(
            {_key(sample): self._variant(cls, args, kwargs, sample) for sample in combinations}
        )

    def _variant(self, cls: type[nn.Module], args: Any, kwargs: Any, sample: dict[str, Any]) -> nn.Module:
        try:
            return _make(cls, args, kwargs, sample)
        except (ShapeError, TypeError, ValueError) as error:
            raise SpaceError(f"{self.op} cannot be built for the choice {sample}: {error}") from error

    def at(self, sample: Mapping[str, Any]) -> Any:
        """Return the op that a sample chooses; it stays part of this one.

        Raises
        ------
        SampleError
            The sample lacks a label, or names no candidate of one.
        """
        chosen = {label: sample.get(label) for label in self.candidates}
        if _key(chosen) not in self.variants:
            raise SampleError(
                f"{self.op} needs a candidate for each of {self.candidates}, but the sample is {dict(sample)}."
            )
        return self.variants[_key(chosen)]

    def freeze(self, sample: Mapping[str, Any]) -> Any:
        """Return the op that a sample chooses, as NNI asks for it."""
        return self.at(sample)

    def forward(self, *args: Any, **options: Any) -> Tensor:
        """Run the variant that the open forward chooses, times the factors of its labels; arguments are the op's.

        Raises
        ------
        ScopeError
            No forward is open, or it does not choose.
        """
        opened = scope.seen_by(self)
        gates = {label: None if opened is None else opened.gate_of(label) for label in self.candidates}
        sample, factors = {}, []
        for label, gate in gates.items():
            if gate is None or len(gate.values) != 1:
                raise ScopeError(
                    f"{self.op} needs one candidate of `{label}`, but none is chosen. Call the network through the "
                    f"mutator, inside `with mutator.using(sample):`, or freeze it first."
                )
            sample[label] = gate.values[0]
            factors += [] if gate.weights is None else [gate.weights[0]]
        y: Tensor = self.at(sample)(*args, **options)
        for factor in factors:
            y = y * factor
        return y

    def extra_repr(self) -> str:
        return ", ".join([self.op, *(f"{label}={values}" for label, values in self.candidates.items())])


def _candidates(cls: type[nn.Module], label: str, mutable: Any) -> list[Any]:
    if not isinstance(mutable, Categorical):
        raise SpaceError(
            f"{cls.__name__}: the argument with the label `{label}` is a {type(mutable).__name__}, but must be chosen "
            f"among candidates: `nni.choice`."
        )
    return list(mutable.values)


def _key(sample: Mapping[str, Any]) -> str:
    return ",".join(f"{label}={value}" for label, value in sample.items()).replace(".", "_")
