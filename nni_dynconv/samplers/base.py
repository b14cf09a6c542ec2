"""The base of every sampler: a distribution over architectures. It knows labels and candidates, and no network."""

from __future__ import annotations

import operator
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal

import torch
from nni.nas.space import MutationSampler
from torch import Tensor, nn

from ..errors import ConfigError, LearningError, SampleError
from .choices import Choice, Choices
from .constrained import Ranked
from .preferring import TRIES, WAY_OUT, draw_allowed, logits_after, most_probable
from .soundness import GradientWatch, at_least_float32, check_logits, check_reward, objection_to, warn_of_reward

__all__ = ["Sampler", "Walk"]

Walk = Generator[Tensor, int, None]
"""Yields the logits of each label's candidates, ``(n,)``, in the order of the labels, and is sent the chosen number."""


class Sampler(nn.Module, MutationSampler, ABC):
    """A distribution over samples, as a network with parameters and as an NNI ``MutationSampler``.

    A subclass writes :meth:`prepare` and :meth:`walk`; the rest follows. One that learns by gradient also writes
    :meth:`relaxed`, one that learns from results :meth:`observe`.

    Parameters
    ----------
    seed
        Decides what is drawn; ``None`` draws a seed. The global generator is left alone.
    """

    mixes = False
    """Whether a forward runs all candidates, mixed by :meth:`relaxed`, instead of the drawn one."""
    learns: Literal["gradient", "rewards", "selection"] = "rewards"
    """By what it learns: a loss's gradient, rewards during the search, or rewards after it."""
    paths: int = 1
    """How many architectures it draws to learn from one held-out batch, if by gradient; 1: through :meth:`relaxed`."""
    unroll: float = 0.0
    """Step of the weights that the held-out loss is looked at after, if by gradient and through :meth:`relaxed`."""
    independent = False
    """Whether the logits of a label are the same whatever was chosen before."""
    reach = 256
    """How many beginnings of architectures :meth:`most_probable` follows at once where they are not: the work of one
    is a :meth:`walk` for each label, if there is no faster :meth:`ahead`."""

    def __init__(self, seed: int | None = None):
        super().__init__()
        self.generator = torch.Generator()
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(_whole(seed))
        self.choices = Choices()
        self.watch = GradientWatch(self)
        self._target: dict[str, Any] | None = None
        self._greedy = self._rarely = False
        self.settled: dict[str, Any] | None = None
        self.front: list[dict[str, Any]] = []

    # What a sampler is

    @abstractmethod
    def prepare(self) -> None:
        """Make parameters for ``self.choices``."""

    @abstractmethod
    def walk(self) -> Walk:
        """Yield the logits of each label in turn; the number chosen is sent back before the next."""

    def relaxed(self, label: str) -> Tensor | None:
        """Return a factor for each candidate's output, ``(n,)``, with gradient, or ``None`` for plain paths."""
        return None

    def observe(self, sample: Mapping[str, Any], reward: float) -> None:
        """Learn from the result of one sample: higher rewards are better.

        Raises
        ------
        LearningError
            It learns by gradient: a reward teaches it nothing. Or the reward is no real number, such as a mapping.

        Warns
        -----
        UserWarning
            The reward is no finite number, or too large, and so teaches nothing; see :meth:`objection`.
        """
        if self.learns == "gradient":
            raise LearningError(
                f"{type(self).__name__} learns by a loss's gradient, and `observe` teaches it nothing. Call "
                f"`mutator.architecture_loss(run).backward()` on held-out batches and step the optimizer of "
                f"`sampler.optimizer()`, or take a sampler that learns from rewards, such as `EnasSampler`."
            )

    def objection(self, reward: float) -> str | None:
        """Return why a reward can teach nothing, in words that its number comes before; ``None`` where it can."""
        return objection_to(reward)

    def anneal(self, progress: float) -> None:
        """Take note of how far its learning is, from 0 at the first step of it to 1 at the last.

        By steps in a strategy, those of a warm-up left out; by results over ``maxTrialNumber`` in a tuner. Where
        nothing tells how many there will be, it stays at the start.
        """

    def optimizer(self) -> torch.optim.Optimizer | None:
        """Return the optimizer for parameters that learn by the loss's gradient, or ``None``."""
        return None

    def penalty(self) -> Tensor | None:
        """Return what its parameters pay besides the loss that they learn by, a scalar with gradient, if anything."""
        return None

    def forget(self) -> None:
        """Forget rewards: the weights that they were measured with have changed."""

    def ahead(self, numbers: Tensor, state: Any) -> tuple[Tensor, Any]:  # N labels-so-far -> N n
        """Return the logits of the next label for several walks, and what the next call goes on from.

        Parameters
        ----------
        numbers
            That each walk has been sent so far.
        state
            What the call for the label before returned, of the same walks: tensors whose rows are walks, or ``None``.
        """
        return torch.stack([logits_after(self.walk(), row) for row in numbers.tolist()]), None

    # What follows

    def bind(self, choices: Mapping[str, Choice]) -> None:
        """Tell the sampler what there is to choose, once.

        Raises
        ------
        SampleError
            It has been told something else before.
        """
        if self.choices and dict(choices) != self.choices:
            raise SampleError(f"{type(self).__name__} serves {list(self.choices)} already. Make one sampler a space.")
        if not self.choices:
            self.choices = choices if isinstance(choices, Choices) else Choices(choices)
            self.prepare()
            self._watch()

    def sample(self) -> dict[str, Any]:
        """Draw one architecture: again, where it breaks a constraint of the space.

        Raises
        ------
        SampleError
            A thousand draws in a row broke one, and the space is too large to tell which do not, or there are none.
        NotFiniteError
            The logits of a label are no finite numbers.

        Warns
        -----
        UserWarning
            It learns by gradient, got a hundred of them, and no optimizer has its parameters.
        """
        self._check_bound()
        if self.learns == "gradient":
            self.watch.say_unused(self.described())
        broken: object = None
        for _ in range(0 if self._rarely else TRIES):
            drawn = self._follow_finite(self._draw)
            broken = self.choices.broken(drawn)
            if broken is None:
                return drawn
        drawn = draw_allowed(self, broken)
        self._rarely = True
        return drawn

    def best(self) -> dict[str, Any]:
        """Return the architecture that it would choose now: the most probable one that keeps the space's constraints.

        Raises
        ------
        SampleError
            There is none, or none was found.
        NotFiniteError
            The logits of a label are no finite numbers.

        Warns
        -----
        UserWarning
            It is the best that was found, and not proven to be the most probable one; see :meth:`most_probable`.
        """
        found = self.most_probable()
        if not found.samples:
            raise SampleError(f"No architecture was found that keeps {list(self.choices.constraints)}. {WAY_OUT}")
        if not found.proven:
            warnings.warn(
                f"The best architecture of {type(self).__name__} is the most probable one that was found, and not "
                f"proven to be the most probable there is: the space is too large to tell.",
                stacklevel=2,
            )
        return found.samples[0]

    @torch.no_grad()
    def most_probable(self, count: int = 1) -> Ranked:
        """Return the most probable architectures that keep the space's constraints, and whether that is proven.

        Where labels are chosen independently it is, unless constraints tie together so many labels in so many ways that
        2^17 beginnings do not do. Where they depend on one another, as for ENAS, it is for spaces of up to
        ``16 * reach`` architectures (65,536 for ENAS), and for larger ones where the distribution is decided enough.

        Parameters
        ----------
        count
            How many.

        Raises
        ------
        NotFiniteError
            The logits of a label are no finite numbers.

        Examples
        --------
        >>> from nni_dynconv.samplers import Choice, DartsSampler
        >>> sampler = DartsSampler()
        >>> sampler.bind({"op": Choice("op", ("conv3", "conv5")), "width": Choice("width", (8, 16))})
        >>> sampler.alphas[1].data[1] = 1.0
        >>> found = sampler.most_probable(3)
        >>> [tuple(one.values()) for one in found.samples], found.proven
        ([('conv3', 16), ('conv5', 16), ('conv3', 8)], True)
        """
        self._check_bound()
        return most_probable(self, count)

    def settle(self, sample: Mapping[str, Any] | None, front: Sequence[dict[str, Any]] = ()) -> None:
        """Let ``mutator.export()`` give this architecture instead of :meth:`best`, until told otherwise.

        What compares architectures after a search, by more than the sampler knows, says so here.

        Parameters
        ----------
        sample
            The architecture; ``None`` leaves the word to :meth:`best` again.
        front
            What it was chosen from where several numbers counted, as plain data; it is kept as :attr:`front`.
        """
        # plain strings for NNI's labels, which `torch.load` refuses: this is part of a saved state
        self.settled = None if sample is None else {str(label): value for label, value in sample.items()}
        self.front = list(front)

    def probabilities(self, label: str) -> Tensor:
        """Return the probability of each candidate, ``(n,)``.

        For a sampler whose choices depend on one another: given the most probable candidates of the labels before.

        Raises
        ------
        SampleError
            There is no such label, or the sampler does not know the space yet.
        """
        self._known(label)
        found: dict[str, Tensor] = {}

        def pick(name: str, logits: Tensor) -> int:
            found[name] = logits.detach().softmax(-1)
            return int(logits.argmax())

        with torch.no_grad():
            self._follow(pick)
        return found[label]

    def log_prob(self, sample: Mapping[str, Any]) -> Tensor:
        """Return the log-probability of a sample before constraints, a scalar with gradient.

        Raises
        ------
        SampleError
            It names a candidate that there is not, or the sampler does not know the space yet.
        """
        return self._evaluate(sample)[0]

    def entropy(self, sample: Mapping[str, Any]) -> Tensor:
        """Return the sum of the labels' entropies in nats along the steps to a sample, a scalar with gradient.

        Raises
        ------
        SampleError
            As of :meth:`log_prob`.
        """
        return self._evaluate(sample)[1]

    def _evaluate(self, sample: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        log_probs: list[Tensor] = []
        entropies: list[Tensor] = []

        def pick(label: str, logits: Tensor) -> int:
            index = self.choices[label].index(sample[label])
            logs = logits.log_softmax(-1)
            log_probs.append(logs[index])
            entropies.append(-(logs.exp() * logs).sum())
            return index

        self._follow(pick)
        if not log_probs:  # a space without choices
            return torch.zeros(()), torch.zeros(())
        return torch.stack(log_probs).sum(), torch.stack(entropies).sum()

    def _follow(self, pick: Callable[[str, Tensor], int]) -> dict[str, Any]:
        self._check_bound()
        walk, sample = self.walk(), {}
        logits = next(walk, None)
        for label, choice in self.choices.items():
            assert logits is not None, f"{type(self).__name__}.walk ended before label {label}"
            number = pick(label, logits)
            sample[label] = choice.candidates[number]
            try:
                logits = walk.send(number)
            except StopIteration:
                logits = None
        return sample

    def _follow_finite(self, pick: Callable[[str, Tensor], int]) -> dict[str, Any]:
        return self._follow(lambda label, logits: pick(label, check_logits(self, label, logits)))

    def _objects(self, sample: Mapping[str, Any], reward: float) -> bool:
        """Whether a reward can teach nothing; if so, it is said."""
        check_reward(self, reward)
        words = self.objection(reward)
        if words is not None:
            warn_of_reward(self, sample, reward, words)
        return words is not None

    def _draw(self, label: str, logits: Tensor) -> int:
        probabilities = logits.detach().softmax(-1).cpu()
        return int(torch.multinomial(probabilities, 1, generator=self.generator))

    def _known(self, label: str) -> None:
        self._check_bound()
        if label not in self.choices:
            raise SampleError(f"The sampler has no label `{label}`; it has {list(self.choices)}.")

    def _check_bound(self) -> None:
        if not self.choices:
            raise SampleError(f"{type(self).__name__} does not know the space yet. Call `bind(choices_of(space))`.")

    # NNI's words: `Mutator.apply` calls these

    def greedily(self, greedy: bool) -> None:
        """Let the coming mutation take :meth:`best` instead of drawing."""
        self._greedy = greedy

    def mutation_start(self, mutator: Any, model: Any) -> None:
        self._check_bound()
        self._target = (self.settled or self.best()) if self._greedy else self.sample()

    def choice(self, candidates: list[Any], mutator: Any, model: Any, index: int) -> Any:
        """Answer NNI's ``Mutator.choice``: the label at hand is the one of the same number."""
        assert self._target is not None, "choice() outside of a mutation"
        label = list(self.choices)[index]
        return candidates[self.choices[label].index(self._target[label])]

    def mutation_end(self, mutator: Any, model: Any) -> None:
        self._target = None
        self._greedy = False

    # Soundness: parameters and what they learn from are finite numbers

    def described(self) -> dict[str, Tensor]:
        """Return the parameters by what an error calls them."""
        return {f"`{name}`": one for name, one in self.named_parameters()}

    def _watch(self) -> None:
        if self.learns == "gradient":
            self.watch.watch(self.described())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Sampler:
        super()._apply(lambda tensor: at_least_float32(fn(tensor), tensor), recurse)
        if self.choices:
            self._watch()
        return self

    # State: parameters, and where the generator is

    def get_extra_state(self) -> dict[str, Any]:
        return {
            "settled": self.settled,
            "front": self.front,
            **self.draw_state(),
            **(self.memory() if self.choices else {}),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        state = dict(state)
        self.settled, self.front = state.pop("settled", None), state.pop("front", [])
        # a state of an earlier version does not have all of it
        self.set_draw_state({name: state.pop(name) for name in self.draw_state() if name in state})
        if self.choices:
            self.remember(state)

    def draw_state(self) -> dict[str, Any]:
        """Return all that the coming draws depend on besides parameters: the generator's state, and what else there is.

        Processes that search together exchange it before each draw.
        """
        return {"generator": self.generator.get_state(), "rarely": self._rarely}

    def set_draw_state(self, state: Mapping[str, Any]) -> None:
        """Draw from here on as the sampler whose :meth:`draw_state` this is."""
        self.generator.set_state(state["generator"])
        self._rarely = state.get("rarely", False)

    def memory(self) -> dict[str, Any]:
        """Return what else is neither parameter nor buffer: numbers, strings, lists and tensors."""
        return {}

    def remember(self, memory: dict[str, Any]) -> None:
        """Restore what :meth:`memory` gave."""

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state["generator"] = self.generator.get_state()  # a generator can be neither copied nor pickled
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        generator = torch.Generator()
        generator.set_state(state["generator"])
        super().__setstate__({**state, "generator": generator})
        if self.choices:
            self._watch()


def _whole(seed: Any) -> int:
    try:
        number = operator.index(seed)
    except (TypeError, RuntimeError):
        number = -1
    if not 0 <= number < 2**63:
        raise ConfigError(f"`seed` is {seed!r}, but must be a whole number from 0 to 2^63 - 1.")
    return number
