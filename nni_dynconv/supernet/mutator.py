"""The mutator: owns sampler and controller, turns a model space into a supernet and runs it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.nas.nn.pytorch import Cell, ModelSpace
from nni.nas.space import Mutator
from torch import Tensor, nn

from ..errors import ContextError, LearningError, ScopeError
from ..generation import (
    ArchitectureEncoder,
    ChunkedController,
    Controller,
    Decision,
    DynamicNetwork,
    WeightSource,
    bind_own_input,
    dim_of,
    install,
    load_original,
    refusing_pairs,
    site_of,
    start_as_given,
    uninstall,
)
from ..ops import DynamicOp
from ..samplers import GdasSampler, Sampler, check_sample, choices_of, distributed
from ..settings import MAKING_BUDGET, Recipe, check_budget, check_settings
from ..sites import Plan, Site, scope
from .asking import OWN, asked_of, check_arguments, check_example
from .calibration import calibrate_copy
from .cells import make_before
from .deciding import Draw, Drawn, Draws, given, shares_of
from .mutating import copyable, freeze, mutate
from .naming import Around, alive_ops
from .support import check_supported
from .unrolling import unrolled_loss

if TYPE_CHECKING:
    from ..cost import Explanation, Fitted, StepCost
    from ..search import DynamicStrategy, Trained

__all__ = ["DynamicWeightMutator"]

Role = Literal["weights", "controller", "architecture"]


class DynamicWeightMutator(nn.Module, Mutator):
    """A searched network whose weights another network makes.

    It owns the distribution over architectures (the sampler) and the hypernetwork that makes weights (the controller),
    and mutates the space in place, as NNI's one-shot strategies do: ``space`` stays an NNI ``ModelSpace`` that can be
    called, trained and frozen, with the controller inside.

    Parameters
    ----------
    space
        A PyTorch model space with dynamic ops in it.
    controller
        Makes the weights; :class:`~nni_dynconv.controllers.ChunkedController` by default.
    sampler
        Chooses architectures; :class:`~nni_dynconv.samplers.GdasSampler` by default. ``False`` leaves the choices to
        one of NNI's own strategies, run on ``mutator.space``.
    context
        Encoder of the context, any module with ``out_dim``; an :class:`~nni_dynconv.context.OwnInputContext` for the
        input of each layer; ``None``: weights do not depend on a context.
    architecture
        Encoder of the architecture, an :class:`~nni_dynconv.ArchitectureEncoder`; ``None``: a site's
        weights are the same in each architecture.
    base, delta, rank
        How the weights of a site come about, see :class:`~nni_dynconv.settings.Recipe`. An op may say otherwise by
        arguments of the same names, ``nni.choice`` among them.
    per_site
        The same by glob pattern of site names, as ``{"body/*": {"delta": "low_rank", "rank": 2}}``; the first that
        matches counts. An op's own word comes before it.
    making_budget
        Of sites whose ``delta`` is ``auto``: how much making and using their weights may add to a training step, as an
        estimate, in steps of the same network with ordinary weights. Each gets the richest base, delta and rank that
        keep to it: ``full``, ``low_rank`` from rank 16 down, ``scale``, or ``none``.
    example
        Needed for that, and only then: a batch of what the network is called with, as one argument, ``x`` or
        ``(x, context)``, or a function that returns it. What was picked stands in :attr:`fitted`.
    label
        NNI's label of the mutator.

    Attributes
    ----------
    fitted
        What ``delta="auto"`` has picked, and at what price, to be printed; ``None`` where nothing was left open.

    Raises
    ------
    SpaceError
        The space has no dynamic op, has a mutator already, or has a choice that the sampler cannot search; its bases
        are to be given, and it was not lifted.
    ConfigError
        A setting is wrong, a delta has no base to change, or a pattern matches no site.

    Examples
    --------
    >>> mutator = DynamicWeightMutator(space, context=VectorContext(8, dim=16))  # doctest: +SKIP
    >>> sample = mutator.reset()  # doctest: +SKIP
    >>> y = mutator(x, context=c)  # doctest: +SKIP
    >>> mutator.export()  # doctest: +SKIP
    """

    sampler: Any  # a Sampler, or None
    space: ModelSpace
    _cur_choice_idx: int | None

    def __init__(
        self,
        space: ModelSpace,
        *,
        controller: Controller | None = None,
        sampler: Sampler | Literal[False] | None = None,
        context: nn.Module | None = None,
        architecture: ArchitectureEncoder | None = None,
        base: str = "none",
        delta: str = "full",
        rank: int = 8,
        per_site: Mapping[str, Mapping[str, Any]] | None = None,
        making_budget: float = MAKING_BUDGET,
        example: Any = None,
        label: str = "dynamic_weights",
    ):
        nn.Module.__init__(self)
        sampler = GdasSampler() if sampler is None else sampler
        check_arguments(space, controller, sampler, context, architecture)
        settings = {"base": base, "delta": delta, "rank": rank, "per_site": per_site}
        check_settings(settings, OWN)
        check_budget(making_budget, OWN)
        Mutator.__init__(self, sampler=sampler or None, label=label)
        self.choices = choices_of(space)
        dim_of(context)
        if not any(isinstance(module, Cell) for module in space.modules()):  # its supernet names its sites
            asked_of(space, settings, context)
        self._take_over(space, sampler, architecture)
        ops, recipes = asked_of(space, settings, context)
        controller = ChunkedController() if controller is None else controller
        self.fitted: Fitted | None = None
        if any(recipe.delta == "auto" for recipe in recipes):
            parts = controller, context, architecture
            recipes = self._fit(space, ops, recipes, parts, example, making_budget)
        bind_own_input(context, ops, recipes)
        sites = [site_of(op) for op in ops.values()]
        source = WeightSource(controller, context, sites, recipes, architecture)
        start_as_given(source, ops)
        install(source, space)
        self.space = space
        self._draws = Draws()
        self.sample: dict[str, Any] | None = None if self.choices else {}
        self._link()

    def _fit(
        self,
        space: ModelSpace,
        ops: Mapping[str, DynamicOp],
        recipes: list[Recipe],
        parts: tuple[Controller, nn.Module | None, ArchitectureEncoder | None],
        example: Any,
        budget: float,
    ) -> list[Recipe]:
        """Pick what is left open."""
        from ..cost import fit

        controller, context, architecture = parts
        own = dim_of(architecture)
        code_dim = dim_of(context) if own is None else own + (dim_of(context) or 0)

        def network(sample: Mapping[str, Any]) -> nn.Module:
            with copyable(space):
                one: Any = copy.deepcopy(freeze(space, sample) if self.choices else space)
            return one.network if isinstance(one, Around) else one

        given = example() if callable(example) and not isinstance(example, Tensor) else example
        check_example(given)
        recipes, self.fitted = fit(ops, recipes, network, controller, context, code_dim, self.choices, given, budget)
        return recipes

    def _take_over(
        self, space: ModelSpace, sampler: Sampler | Literal[False], architecture: ArchitectureEncoder | None
    ) -> None:
        search = sampler or None if self.choices else None  # without choices NNI would search in a frozen `Cell`
        if search is not None:
            check_supported(space, gradient=search.learns == "gradient", mixes=search.mixes)
            search.bind(self.choices)
        if architecture is not None:
            architecture.bind({name: one.inputs or len(one) for name, one in self.choices.items()})
        if search is not None:  # last: what can be refused has been
            mutate(space)
        elif sampler is False:
            for cell in [one for one in space.modules() if isinstance(one, Cell) and one.op_candidates_factory]:
                make_before(cell)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("model", "_cur_model"):  # NNI's references to a space must not become submodules
            object.__setattr__(self, name, value)
            return
        super().__setattr__(name, value)
        if name == "sample":
            self._draw = Draw(self._draws)

    # Parts

    @property
    def source(self) -> WeightSource:
        """What makes the weights: controller, encoder and bases."""
        return self.space.weight_source

    @property
    def controller(self) -> Controller | None:
        """The hypernetwork; ``None`` where all weights are static."""
        return self.source.controller

    @property
    def context(self) -> nn.Module | None:
        """The context's encoder."""
        return self.source.encoder

    def parameters_by_role(self) -> dict[Role, list[nn.Parameter]]:
        """Return parameters for optimizers.

        Returns
        -------
        ``weights``: of the network itself. ``controller``: what makes weights, with encoder and bases; train both on
        training batches. ``architecture``: the sampler's; train those that a differentiable sampler has on held-out
        batches (:class:`~nni_dynconv.samplers.EnasSampler` trains its own in ``observe``).
        """
        controller = list(self.source.parameters())
        known = set(map(id, controller))
        weights = [one for one in self.space.parameters() if id(one) not in known]
        architecture = list(self.sampler.parameters()) if self.sampler is not None else []
        return {"weights": weights, "controller": controller, "architecture": architecture}

    # Choosing

    def reset(self) -> dict[str, Any]:
        """Draw the architecture of the coming forwards and return its sample.

        Raises
        ------
        ScopeError
            NNI's own strategy chooses (``sampler=False``).
        SampleError
            A thousand draws in a row broke a constraint of the space.
        """
        self._draws.count += 1
        return self._choose(greedy=False)

    def export(self) -> dict[str, Any]:
        """Return the architecture that the sampler would choose now; the drawn one stays in use.

        Raises
        ------
        ScopeError, SampleError
            As of :meth:`reset`.
        """
        drawn = self.sample
        try:
            return self._choose(greedy=True)
        finally:
            self.sample = drawn

    def _choose(self, greedy: bool) -> dict[str, Any]:
        self.check_sampler()
        self._link()
        if self.choices:
            self.sampler.greedily(greedy)
            with torch.no_grad():
                self.apply(self.space)
        return dict(self.sample or {})

    def apply(self, target: Any) -> Any:
        """Mutate a space, as NNI's ``Mutator``, or apply a function to each submodule, as ``nn.Module``."""
        if not isinstance(target, ModelSpace):
            return nn.Module.apply(self, target)
        self._cur_model, self._cur_choice_idx = target, 0
        self._cur_samples: list[Any] = []
        self.sampler.mutation_start(self, target)
        try:
            self.mutate(target)
        finally:
            self.sampler.mutation_end(self, target)
            self._cur_model, self._cur_choice_idx = None, None
        return target

    def mutate(self, model: ModelSpace) -> None:
        """Ask the sampler for a candidate of each label."""
        self.sample = {label: Mutator.choice(self, choice.candidates) for label, choice in self.choices.items()}

    def status(self) -> dict[str, Any]:
        """Return where the search is: the sample, its log-probability and entropy, each label's probabilities."""
        self.check_sampler()
        tables = {label: self.sampler.probabilities(label).tolist() for label in self.choices}
        named = {
            label: dict(zip(map(str, choice.candidates), tables[label], strict=True))
            for label, choice in self.choices.items()
        }
        drawn = bool(self.choices) and self.sample is not None
        return {
            "sample": self.sample,
            "log_prob": self.sample_log_prob.item() if drawn else None,
            "entropy": self.sample_entropy.item() if drawn else None,
            "probabilities": named,
        }

    @property
    def sample_log_prob(self) -> Tensor:
        """Log-probability of the drawn sample, a scalar with gradient."""
        return self.sampler.log_prob(self._drawn())

    @property
    def sample_entropy(self) -> Tensor:
        """Sum of the labels' entropies in nats, a scalar with gradient."""
        return self.sampler.entropy(self._drawn())

    def architecture_loss(self, run: Callable[[], Any], training: Callable[[], Any] | None = None) -> Any:
        """Draw what the sampler learns from, and return the loss that its parameters learn by.

        ``backward()`` of it gives them their gradient. Clear gradients before, and step the optimizer of
        ``sampler.optimizer()`` after it::

            mutator.zero_grad()
            mutator.architecture_loss(lambda: F.cross_entropy(mutator(x, context=c), y)).backward()
            architecture.step()

        A sampler that compares several paths (:class:`~nni_dynconv.samplers.GdasSampler`) is told the losses of so many
        drawn architectures, which run without gradient; one that was drawn twice runs once. For others ``run`` is
        called once, with gradient. Processes of ``torch.distributed`` draw alike, and compare by the mean of their
        losses.

        Parameters
        ----------
        run
            Returns the loss of the drawn architecture, a scalar, on one held-out batch: the same each time. Where it
            returns ``None``, so does this.
        training
            The same on a training batch, for :class:`~nni_dynconv.samplers.DartsSampler` with ``unroll``.

        Raises
        ------
        LearningError
            The sampler does not learn by gradient, or ``training`` is missing.
        ScopeError, SampleError
            As of :meth:`reset`.
        """
        self.check_sampler()
        if self.sampler.learns != "gradient":
            raise LearningError(
                f"{type(self.sampler).__name__} does not learn by a loss's gradient. Tell it the result of a drawn "
                f"architecture: `sampler.observe(sample, reward)`."
            )
        distributed.agree(self.sampler)
        loss = self._compared(run) if self.sampler.paths > 1 and self.choices else self._relaxed(run, training)
        penalty = self.sampler.penalty()
        return loss if loss is None or penalty is None else loss + penalty

    def _relaxed(self, run: Callable[[], Any], training: Callable[[], Any] | None) -> Any:
        self.reset()
        step = self.sampler.unroll if self.choices else 0.0
        if not step:
            return run()
        if training is None:
            raise LearningError(
                f"`unroll` of {type(self.sampler).__name__} is {step}: the held-out loss is looked at after a step of "
                f"the weights, but `architecture_loss` was given no training loss. Write "
                f"`mutator.architecture_loss(run, training=lambda: ...)`."
            )
        weights = [one for one in self.space.parameters() if one.requires_grad]
        return unrolled_loss(run, training, weights, list(self.sampler.parameters()), step)

    def _compared(self, run: Callable[[], Any]) -> Any:
        samples: list[dict[str, Any]] = []
        losses: list[float] = []
        for _ in range(self.sampler.paths):
            sample = self.reset()
            with torch.no_grad():
                loss = losses[samples.index(sample)] if sample in samples else run()
            if loss is None:
                return None
            samples.append(sample)
            losses.append(float(loss))
        return self.sampler.score(samples, [distributed.mean(one) for one in losses])

    def _drawn(self) -> dict[str, Any]:
        self.check_sampler()
        if self.sample is None:
            raise ScopeError("No architecture is drawn yet. Call `mutator.reset()` first.")
        return self.sample

    def check_sampler(self) -> None:
        """Refuse in words what needs a sampler where NNI's own strategy chooses.

        Raises
        ------
        ScopeError
            The mutator was made with ``sampler=False``.
        """
        if self.sampler is None:
            raise ScopeError("This mutator was made with `sampler=False`: NNI's own strategy chooses.")

    # Running

    def forward(self, *inputs: Any, context: Any = None, index: Tensor | None = None, **options: Any) -> Any:
        """Run the drawn architecture, or the one of :meth:`using`.

        Parameters
        ----------
        *inputs, **options
            Of the space's own forward.
        context
            What the encoder takes, of batch ``B``, or of batch 1 for weights that the batch shares; with ``index``, of
            any batch ``D``.
        index
            ``(B,)``, whole numbers below ``D``: which context each sample has. One set of weights is made for each
            context that is used, not for each sample. The network then sees the samples sorted by context: tensors
            whose first axis is ``B`` are, in its inputs, and sorted back in its outputs.

        Raises
        ------
        ScopeError
            Nothing is drawn yet.
        ContextError
            The context is missing, not wanted, or of another batch size; the index does not fit.
        """
        self._link()
        with refusing_pairs(inputs, self.source.of_context):
            return self.space(*inputs, context=context, index=index, **options)

    @contextmanager
    def using(self, sample: Mapping[str, Any], context: Any = None) -> Iterator[DynamicWeightMutator]:
        """Use another architecture for a block, in this thread; ops may be called on their own in it.

        Parameters
        ----------
        sample
            NNI's, with a candidate for each label.
        context
            What the encoder takes, for ops that are called on their own.

        Raises
        ------
        SampleError
            The sample names a label or a candidate that the space does not have, or lacks one.
        """
        check_sample(sample, self.choices)
        decision = given(self.choices, dict(sample), self._alive(sample))
        opened = self.source.using(decision, context)
        with scope.enter(opened):
            yield self

    def _link(self) -> None:
        if self.source.decide is None and self.sampler is not None:  # a copy has to be told anew
            self.source.decide = self._decide

    def _decide(self) -> Decision:
        if self.sample is None:
            raise ScopeError(
                "No architecture is drawn yet. Call `mutator.reset()` before the forward, or use "
                "`with mutator.using(sample):`."
            )
        if self._draw.is_over(self._draws) and not self.sampler.mixes:
            raise ScopeError(
                f"This mutator is a copy, made at the architecture {self.sample}, and the one that it was copied from "
                f"has drawn another since. Say which is meant: `with copy.using(sample):`, or let the copy draw: "
                f"`copy.reset()`."
            )
        drawn = Drawn(self.choices, self.sampler, self.sample, lambda: self.sample)
        return drawn.decision(tuple(self.source.asked.values()) if self.sampler.mixes else self._alive(self.sample))

    # What is asked for

    def plan(self, sample: Mapping[str, Any] | None = None) -> Plan:
        """Return the sites that are alive under a sample (the drawn one by default) and what is made for them.

        With a sampler that mixes all candidates and without a sample: every site.

        Parameters
        ----------
        sample
            NNI's, with a candidate for each label.

        Raises
        ------
        SampleError
            The sample is none of the space.
        ScopeError
            Nothing is drawn yet.
        """
        if sample is None:
            mixes = self.sampler is None or self.sampler.mixes
            if mixes:
                return Plan(tuple(self.source.asked.values()))
            sample = self._drawn()
        check_sample(sample, self.choices)
        return Plan(self._alive(sample), dict(sample))

    def weights(self, sample: Mapping[str, Any] | None = None, context: Any = None) -> dict[str, dict[str, Tensor]]:
        """Return what an architecture's ops use: tensors by name for each site, as ``op(x, weights[site])`` takes them.

        They have gradient where the mutator's parts do and gradient is on.

        Parameters
        ----------
        sample
            NNI's; the drawn one by default.
        context
            What the encoder takes; ``None`` where weights depend on none.

        Returns
        -------
        Each tensor is ``(*shape)``, or ``(B, *shape)`` for B contexts. Where the controller hands over a module, there
        are none, and the site is left out.

        Raises
        ------
        SampleError
            The sample is none of the space.
        ScopeError
            Nothing is drawn yet.
        ContextError
            The context is missing or not wanted, or weights are made from each layer's own input.

        Examples
        --------
        >>> weights = mutator.weights({"stem": "conv3"}, context)  # doctest: +SKIP
        >>> weights["stem/conv3"]["weight"].shape  # doctest: +SKIP
        torch.Size([4, 16, 3, 3, 3])
        """
        sample = self._drawn() if sample is None else sample
        if self.source.own_input is not None:
            raise ContextError(
                "These weights are made from each layer's own input (OwnInputContext), which only a forward has."
            )
        with self.using(sample, context):
            opened = scope.current_of(self.source)
            names = [site.name for site in self._alive(sample) if self.source.module_for(site.name) is None]
            return {name: dict(opened.weights(name)) for name in names}  # type: ignore[union-attr]

    def _alive(self, sample: Mapping[str, Any]) -> tuple[Site, ...]:
        names = {str(op.site): None for op in alive_ops(self.space, sample)}
        return tuple(self.source.asked[name] for name in names)

    def freeze(
        self, sample: Mapping[str, Any] | None = None, *, calibrate: Iterable[Any] | None = None
    ) -> DynamicNetwork:
        """Return one architecture as a plain module ``network(x, context)``, with a copy of the weights it needs.

        Parameters
        ----------
        sample
            The exported one by default.
        calibrate
            Training batches, ``((x, context), y)`` or ``(x, y)``, that BatchNorm's running statistics are gathered
            on anew, to be kept; all of them are gone through, so ``itertools.islice(loader, 8)`` takes eight. Without
            them they are the supernet's, a mixture over all architectures: give batches where the copy is to be
            evaluated or saved without being trained first. A space without BatchNorm needs none and takes none.

        Raises
        ------
        ConfigError
            ``calibrate`` is empty where there is a BatchNorm, or its batches are of another form.
        SampleError
            The sample is none of the space.
        """
        sample = self.export() if sample is None else sample
        check_sample(sample, self.choices)
        sample, plan = dict(sample), self.plan(sample)
        with copyable(self.space):
            without: dict[int, Any] = {id(self.source): nn.Identity()}  # it is copied by itself, as far as it is needed
            network = copy.deepcopy(freeze(self.space, sample) if self.choices else self.space, without)
        uninstall(network)
        network = network.network if isinstance(network, Around) else network
        frozen = DynamicNetwork(network, self.source.restricted(plan.sites, shares_of(self.choices, sample)), sample)
        frozen.train(self.training)
        if calibrate is not None:
            calibrate_copy(frozen, calibrate)
        return frozen

    def cost(self, sample: Mapping[str, Any] | None = None, /, *inputs: Any, **options: Any) -> StepCost:
        """Estimate what a training step of one architecture costs, before anything is trained: time, memory, work.

        Nothing of the network is computed: its step runs on tensors without values, and is priced by what this machine
        takes for each of its operators, measured alone, on few samples and once in a process (some tenths of a second).
        The seconds are those of the CPU threads, or of the device, that it would run on.

        Parameters
        ----------
        sample
            NNI's; the exported one by default.
        *inputs, **options
            What the network is called with, a batch of it: ``x, context``, or ``x, context=c, index=i``.

        Warns
        -----
        UserWarning
            Making weights costs more than the whole network that uses them; it names a cheaper setting.

        Raises
        ------
        SampleError
            The sample is none of the space.
        ConfigError
            No tensor is given.

        Examples
        --------
        >>> print(mutator.cost(mutator.export(), x, context))  # doctest: +SKIP
        a training step of 32 samples: 50.9 ms, 1.04x of static; 13.2 MB; 10,153,696 multiply-adds a sample
          static        49 ms   96%       +8.7 MB       +9,880,032 multiply-adds a sample
          making      2.79 ms    5%       +0.8 MB         +273,280 multiply-adds a sample
          using     -0.807 ms   -2%       +3.7 MB             +384 multiply-adds a sample
        """
        from ..cost import estimate_and_warn

        return estimate_and_warn(self.freeze(sample), inputs, options)

    def explain(self, *inputs: Any, sample: Mapping[str, Any] | None = None, **options: Any) -> Explanation:
        """Measure one training step, forward and backward, and tell what each site takes of it, and why.

        ``print`` it: a table of sites, what their weights are made of, by which path their ops are computed and why,
        time, share and memory. The step runs twice, on a copy, under torch's profiler; times are those of the CPU.

        Parameters
        ----------
        *inputs, **options
            What the network is called with: ``x, context=c``.
        sample
            NNI's; the drawn one by default, or all candidates, where the sampler mixes them.

        Raises
        ------
        ScopeError
            Nothing is drawn yet.
        SampleError
            The sample is none of the space.

        Examples
        --------
        >>> print(mutator.explain(x, context=c))  # doctest: +SKIP
        """
        from ..cost import explain_step

        if sample is None and self.sampler is not None and self.sampler.mixes:
            with copyable(self.space):
                mixed = copy.deepcopy(self).train()
            mixed.reset()
            return explain_step(mixed.space, mixed.source, lambda: mixed(*inputs, **options))
        return self.freeze(self._drawn() if sample is None else sample).explain(*inputs, **options)

    def load_original(self, state: Mapping[str, Tensor]) -> None:
        """Load the ``state_dict()`` of the network that was lifted: into bases, kept layers and running statistics.

        Deltas stay as they are; where bases were given they start at zero, and the network is then the original.

        Raises
        ------
        ParamsError
            Names or shapes differ, or a lifted layer has no base; nothing is loaded then.
        """
        load_original(self.space.network if isinstance(self.space, Around) else self.space, state, self.source)

    def strategy(self, **options: Any) -> DynamicStrategy:
        """Return the strategy that searches this mutator's space in an NNI ``NasExperiment``.

        Parameters
        ----------
        **options
            Of :class:`~nni_dynconv.search.strategy.DynamicStrategy`: ``warmup_epochs``, ``rerank`` and others.

        Raises
        ------
        ConfigError
            There is no such option.
        ScopeError
            NNI's own strategy chooses (``sampler=False``).
        """
        from ..diagnosis import DiagnosisCallback
        from ..search import DynamicStrategy

        return DynamicStrategy(self, **{"diagnosis": DiagnosisCallback, **options})

    def train_final(
        self,
        step: Callable[[nn.Module, Any], Tensor],
        train: Iterable[Any],
        held_out: Iterable[Any] | None = None,
        *,
        optimizer: Callable[[nn.Module], Any],
        epochs: int,
        sample: Mapping[str, Any] | None = None,
        initial: Mapping[str, Tensor] | None = None,
        folder: str | Path | None = None,
    ) -> Trained:
        """Train what a plain loop has found to its end, by the loop's own step; the best epoch is kept.

        Parameters
        ----------
        step
            Called as ``step(network, batch)``: gives the loss of a plain module ``network(x, context)``.
        train, held_out
            Batches, gone through once an epoch. The epoch with the lowest loss on the held-out ones is kept; without
            them it is the last.
        optimizer
            Called as ``optimizer(network)``. What it gives is what Lightning's ``configure_optimizers`` may: an
            optimizer, or a dict with a schedule.
        epochs
            How many.
        sample
            The exported one by default.
        initial
            ``space.state_dict()`` from before the search, copied, to train from scratch; by default the training goes
            on from the weights that the supernet has or makes.
        folder
            Where the run is written; ``None``: nowhere.

        Returns
        -------
        Its ``network`` is on the CPU and in evaluation mode, ready for :func:`nni_dynconv.export.save`.

        Raises
        ------
        SampleError
            The sample is none of the space.
        NotFiniteError
            The training diverged.

        Examples
        --------
        >>> trained = mutator.train_final(  # doctest: +SKIP
        ...     lambda network, batch: F.cross_entropy(network(batch[0], batch[1]), batch[2]),
        ...     loader,
        ...     held_out,
        ...     optimizer=lambda network: torch.optim.Adam(network.parameters(), lr=2e-3),
        ...     epochs=20,
        ... )
        """
        from ..search import train_by_step

        sample = self.export() if sample is None else dict(sample)
        return train_by_step(self, step, train, held_out, optimizer, epochs, sample, initial, folder)

    def extra_repr(self) -> str:
        return f"label={self.label!r}, choices={list(self.choices)}"
