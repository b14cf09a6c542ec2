"""The spaces that ``steps.py`` and ``growth.py`` search, each dynamic and as a static twin, and a search step of both.

The twins have the same operators, norms, loss, optimizers and drawn paths; only who makes the weights differs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
import torch.nn.functional as F
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.strategy import DARTS, GumbelDARTS, RandomOneShot
from torch import Tensor, nn

from nni_dynconv import DynamicWeightMutator, VectorContext
from nni_dynconv.functional import without_kernels
from nni_dynconv.ops import DynamicConv2d, DynamicDilConv, DynamicSepConv
from nni_dynconv.samplers import DartsSampler, EnasSampler, GdasSampler, RandomSampler, Sampler, choices_of
from nni_dynconv.supernet.mixture import without_fusion

__all__ = ["SPACES", "Candidates", "Problem", "Step", "nni_step", "our_step"]

CONTEXT = 4  # numbers that a sample's context has
Step = Callable[[], object]
Candidates = dict[str, nn.Module]


# Candidates, C channels to C at the same size


def darts_ops(C: int, dynamic: bool) -> Candidates:
    """DARTS's operators; a separable convolution stands once, not twice."""
    made: Candidates = {}
    for name, dilation, ours in (("separable", 1, DynamicSepConv), ("dilated", 2, DynamicDilConv)):
        for K in (3, 5):
            made[f"{name}{K}"] = ours(C, C, K) if dynamic else _separable(C, K, dilation)
    pool = nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.BatchNorm2d(C, affine=False))
    return {**made, "pool": pool, "skip": nn.Identity()}


def _separable(C: int, K: int, dilation: int) -> nn.Module:
    depthwise = nn.Conv2d(C, C, K, padding=dilation * (K // 2), dilation=dilation, groups=C, bias=False)
    return nn.Sequential(nn.ReLU(), depthwise, nn.Conv2d(C, C, 1, bias=False), nn.BatchNorm2d(C))


def dense(C: int, dynamic: bool) -> Candidates:
    """ReLU, convolution, BatchNorm."""
    convs = {f"conv{K}": _conv(C, K, 1, dynamic) for K in (3, 5, 1)}
    return {name: nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(C)) for name, conv in convs.items()}


def convolutions(C: int, dynamic: bool) -> Candidates:
    """Nothing but convolutions, which a mixture runs as one."""
    return {f"conv{K}_{dilation}": _conv(C, K, dilation, dynamic) for K, dilation in ((1, 1), (3, 1), (5, 1), (3, 2))}


def _conv(C: int, K: int, dilation: int, dynamic: bool) -> nn.Module:
    make = DynamicConv2d if dynamic else nn.Conv2d
    return make(C, C, K, padding=dilation * (K // 2), dilation=dilation, bias=False)


SPACES: dict[str, Callable[[int, bool], Candidates]] = {
    "darts_ops": darts_ops,
    "dense": dense,
    "convolutions": convolutions,
}


class Network(ModelSpace):
    """A stem, layers of one choice each, a head."""

    def __init__(self, candidates: Callable[[int, bool], Candidates], C: int, layers: int, dynamic: bool):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, C, 3, padding=1, bias=False), nn.BatchNorm2d(C))
        stack: list[nn.Module] = []
        for number in range(layers):
            choice = LayerChoice(candidates(C, dynamic), label=f"layer{number}")
            stack += [choice] if candidates is not convolutions else [choice, nn.ReLU()]
        self.layers = nn.Sequential(*stack)
        self.head = nn.Linear(C, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.stem(x)).mean((2, 3)))


class Problem(NamedTuple):
    """A space at a size."""

    candidates: Callable[[int, bool], Candidates]
    B: int
    C: int
    HW: int
    layers: int = 4
    device: torch.device = torch.device("cpu")

    def network(self, dynamic: bool) -> Network:
        torch.manual_seed(0)
        return Network(self.candidates, self.C, self.layers, dynamic)

    def batches(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """A training and a held-out batch: input, context, target."""
        torch.manual_seed(1)
        return [self._batch(), self._batch()]

    def _batch(self) -> tuple[Tensor, Tensor, Tensor]:
        x, context = torch.randn(self.B, 3, self.HW, self.HW), torch.randn(self.B, CONTEXT)
        return x.to(self.device), context.to(self.device), torch.randint(0, 10, (self.B,)).to(self.device)


# A search step


def _sampler(name: str) -> Sampler:
    """The architecture's optimizers do their work at a rate of zero, so that all contenders draw the same paths."""
    if name == "random":
        return RandomSampler(0)
    return {"gdas": GdasSampler, "darts": DartsSampler, "enas": EnasSampler}[name](0, learning_rate=0.0)


def _weights_optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)


def our_step(
    problem: Problem,
    sampler: str,
    per_sample: bool,
    *,
    kernels: bool = True,
    given: bool = False,
    fusion: bool = True,
) -> Step:
    """Make a step of the dynamic supernet, as ``DynamicStrategy`` does it.

    Parameters
    ----------
    kernels
        Whether the compiled kernels may be used.
    given
        The controller's output is there beforehand, as leaf tensors: what a step costs without generation.
    fusion
        Whether a mixture's convolutions may run as one.
    """
    context = VectorContext(CONTEXT, dim=16) if per_sample else None
    mutator = DynamicWeightMutator(problem.network(True), sampler=_sampler(sampler), context=context)
    mutator.to(problem.device)
    if given:
        _give(mutator, problem.B if per_sample else None, problem.device)
    roles = mutator.parameters_by_role()
    optimizer = _weights_optimizer(roles["weights"] + roles["controller"])
    architecture = mutator.sampler.optimizer()
    training, held_out = problem.batches()

    def loss(batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, c, y = batch
        return F.cross_entropy(mutator(x, context=c if per_sample else None), y)

    def step() -> None:
        if architecture is not None:
            architecture.zero_grad()
            mutator.architecture_loss(lambda: loss(held_out)).backward()
            architecture.step()
        elif mutator.sampler.learns == "rewards":
            sample = mutator.reset()
            with torch.no_grad():
                reward = -loss(held_out).item()
            mutator.sampler.observe(sample, reward)
        mutator.reset()
        _update(optimizer, loss(training))

    step = step if kernels else without_kernels()(step)
    return step if fusion else without_fusion()(step)


def _give(mutator: DynamicWeightMutator, batch: int | None, device: torch.device) -> None:
    lead = () if batch is None else (batch,)
    made = {
        name: torch.randn(*lead, site.num_generated, device=device, requires_grad=True)
        for name, site in mutator.source.sites.items()
    }
    mutator.controller.generate = lambda sites, context: [made[site.name] for site in sites]  # type: ignore[method-assign]


def nni_step(problem: Problem, sampler: str) -> tuple[Step, str]:
    """Make the same step of NNI's own static supernet, and say what of NNI it is.

    Path samplers follow the paths that ours draw. NNI's ENAS needs an old tianshou and gym: for ``enas`` NNI's
    path-sampling supernet is driven by our policy. NNI has no GDAS: its nearest, GumbelDARTS, runs every candidate.
    """
    strategy = {"darts": DARTS, "gdas": GumbelDARTS}.get(sampler, RandomOneShot)()
    space = problem.network(False)
    choices = choices_of(space)
    strategy.mutate_model(space)
    space.to(problem.device)
    supers = [module for module in space.modules() if isinstance(module, BaseSuperNetModule)]
    alphas = [one._arch_alpha for one in supers if hasattr(one, "_arch_alpha")]
    known = set(map(id, alphas))
    optimizer = _weights_optimizer([one for one in space.parameters() if id(one) not in known])
    architecture = torch.optim.Adam(alphas, lr=0.0, betas=(0.5, 0.999)) if alphas else None
    training, held_out = problem.batches()
    ours = _sampler(sampler)
    ours.bind(choices)

    def resample() -> dict[str, Any]:
        sample = ours.sample() if architecture is None else {}
        for module in supers:
            module.resample(memo=sample)
        return sample

    def loss(batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(space(batch[0]), batch[2])

    def step() -> None:
        if architecture is not None:
            resample()
            architecture.zero_grad()
            loss(held_out).backward()
            architecture.step()
        elif sampler == "enas":
            sample = resample()
            with torch.no_grad():
                reward = -loss(held_out).item()
            ours.observe(sample, reward)
        resample()
        _update(optimizer, loss(training))

    names = {"random": "RandomOneShot", "enas": "RandomOneShot's supernet, our ENAS policy"}
    return step, names.get(sampler, type(strategy).__name__)


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
