"""``DartsMutator`` and ``EnasMutator`` as search loops of NNI 2.x know them, now with generated weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from ..errors import SpaceError
from ..generation import DynamicNetwork
from ..ops import DynamicOp
from ..samplers import DartsSampler, EnasSampler, Sampler
from ..supernet import DynamicWeightMutator
from .lifting import lift

__all__ = ["DartsMutator", "EnasMutator"]


class _Mutator(nn.Module):
    """Chooses for a model that the loop calls itself; its parameters are the sampler's alone.

    Attributes
    ----------
    dynamic
        The whole mutator: plan, frozen networks, strategies.
    """

    dynamic: DynamicWeightMutator

    def __init__(self, model: ModelSpace, sampler: Sampler, **options: Any):
        super().__init__()
        if not isinstance(model, ModelSpace):
            raise SpaceError(
                f"The model {type(model).__name__} is no `ModelSpace`, which NNI 3 asks for. Write "
                f"`class {type(model).__name__}(ModelSpace)`, and `label=` for `key=` in its choices."
            )
        dynamic = any(isinstance(module, DynamicOp) for module in model.modules())
        make = partial(DynamicWeightMutator, model) if dynamic else lift(model).mutator
        self.sampler = sampler
        self.__dict__["dynamic"] = make(sampler=sampler, **options)  # unregistered: the model's parameters are its own

    def reset(self) -> dict[str, Any]:
        """Choose anew for the coming forwards; NNI 2.x returned nothing."""
        return self.dynamic.reset()

    def export(self) -> dict[str, Any]:
        """Return the architecture found: names of candidates, an NNI 3 sample, where NNI 2.x gave masks."""
        return self.dynamic.export()

    def status(self) -> dict[str, Any]:
        """Return sample, log-probability, entropy and each label's probabilities."""
        return self.dynamic.status()

    def freeze(
        self, sample: Mapping[str, Any] | None = None, *, calibrate: Iterable[Any] | None = None
    ) -> DynamicNetwork:
        """Return one architecture as a plain module, in place of NNI 2.x's ``apply_fixed_architecture``.

        ``calibrate`` as in :meth:`~nni_dynconv.DynamicWeightMutator.freeze`.
        """
        return self.dynamic.freeze(sample, calibrate=calibrate)


class DartsMutator(_Mutator):
    """NNI 2.x's ``DartsMutator``: all candidates run, mixed, and the loss's gradient tells which are good.

    ``mutator.parameters()`` are the architecture's alone, for an optimizer of the loop's own.

    Parameters
    ----------
    model
        The network, a ``ModelSpace``; it is changed in place. Without a dynamic op in it, the convolutions of its
        choices are lifted: their own weights become the base of generated ones. Optimizers of ``model.parameters()``
        must be made after the mutator, which brings in the controller's.
    seed
        Of the sampler.
    **options
        ``context`` and ``controller`` of :class:`~nni_dynconv.DynamicWeightMutator`; ``base`` too, where the
        model has dynamic ops.

    Notes
    -----
    NNI 2.x added a candidate "none" to each choice and let all inputs of an ``InputChoice`` through. Here only your
    own candidates count, and inputs are weighed as they are.

    References
    ----------
    Liu et al., DARTS: differentiable architecture search, ICLR 2019.
    """

    def __init__(self, model: ModelSpace, *, seed: int | None = None, **options: Any):
        super().__init__(model, DartsSampler(seed, mixture="softmax"), **options)


class EnasMutator(_Mutator):
    """NNI 2.x's ``EnasMutator``: a recurrent policy draws one architecture, and the loop teaches it by rewards.

    ``mutator.parameters()`` are the policy's alone, for an optimizer of the loop's own.

    Parameters
    ----------
    model, seed, **options
        As of :class:`DartsMutator`.
    lstm_size
        Width of the policy.
    tanh_constant
        Bound of its logits.

    References
    ----------
    Pham et al., Efficient neural architecture search via parameter sharing, ICML 2018.
    """

    def __init__(
        self,
        model: ModelSpace,
        *,
        seed: int | None = None,
        lstm_size: int = 64,
        tanh_constant: float = 1.5,
        **options: Any,
    ):
        super().__init__(model, EnasSampler(seed, hidden=lstm_size, tanh_constant=tanh_constant), **options)

    @property
    def sample_log_prob(self) -> Tensor:
        """Cross entropy of the drawn sample, ``-log p``, which is what NNI 2.x had under this name, with gradient.

        So ``sample_log_prob * (reward - baseline)`` is a loss. ``DynamicWeightMutator.sample_log_prob`` is ``log p``.
        """
        return -self.dynamic.sample_log_prob

    @property
    def sample_entropy(self) -> Tensor:
        """Entropy in nats along the steps to the drawn sample, without gradient, as in NNI 2.x."""
        return self.dynamic.sample_entropy.detach()

    @property
    def sample_skip_penalty(self) -> Tensor:
        """Zero: only an ``InputChoice`` with an open ``n_chosen`` had a penalty, and those are refused."""
        return torch.zeros(())
