"""Networks in another precision: the type of what comes out, and how far it is from float32, in every form."""

from __future__ import annotations

import copy

import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_dynconv import (
    ArchitectureEncoder,
    DartsSampler,
    DynamicConv2d,
    DynamicGroupNorm,
    DynamicLinear,
    DynamicSepConv,
    DynamicWeightMutator,
    EnasSampler,
    FairSampler,
    FeatureMapContext,
    GdasSampler,
    OwnInputContext,
    RandomSampler,
    SequenceContext,
    VectorContext,
    export,
    load,
)
from nni_dynconv.generation import controllers

FAR = {torch.bfloat16: 0.15, torch.float16: 0.03, torch.float64: 1e-4}
CONTROLLERS = [name for name in controllers.__all__ if name != "Controller"]
CONTEXTS = {
    "vector": (lambda: VectorContext(4, 8), lambda: torch.randn(2, 4)),
    "map": (lambda: FeatureMapContext(3, 8), lambda: torch.randn(2, 3, 8, 8)),
    "sequence": (lambda: SequenceContext(4, 8), lambda: torch.randn(2, 5, 4)),
    "own input": (lambda: OwnInputContext(8), lambda: None),
    "none": (lambda: None, lambda: None),
}
CASES = [
    *({"controller": name} for name in CONTROLLERS),
    *({"controller": name, "architecture": True, "base": "learned"} for name in CONTROLLERS),
    *({"context": name} for name in CONTEXTS),
    *({"base": "learned", "delta": delta} for delta in ("none", "scale", "low_rank", "full")),
    *({"sampler": sampler} for sampler in (DartsSampler, GdasSampler, EnasSampler, FairSampler)),
]


class Space(ModelSpace):
    def __init__(self):
        super().__init__()
        candidates = {
            "c3": DynamicConv2d(8, 8, 3, padding=1),
            "sep": DynamicSepConv(8, 8, 5),
            "c1": DynamicConv2d(8, 8, 1),
        }
        self.stem, self.body = DynamicConv2d(3, 8, 3, padding=1), LayerChoice(candidates, label="a")
        self.static, self.norm, self.head = nn.BatchNorm2d(8), DynamicGroupNorm(2, 8), DynamicLinear(8, 5)

    def forward(self, x):
        return self.head(self.norm(self.static(self.body(self.stem(x)))).relu().mean((2, 3)))


def made(controller="ChunkedController", context="vector", sampler=RandomSampler, architecture=False, **options):
    torch.manual_seed(0)
    encoder, draw = CONTEXTS[context]
    mutator = DynamicWeightMutator(
        Space(),
        controller=getattr(controllers, controller)(),
        context=encoder(),
        sampler=sampler(seed=0),
        architecture=ArchitectureEncoder(4) if architecture else None,
        **options,
    ).eval()
    mutator.reset()
    return mutator, torch.randn(2, 3, 8, 8), draw()


def to(value, dtype):
    return None if value is None else value.to(dtype)


def assert_near(y, expected, dtype):
    assert y.dtype == dtype and y.isfinite().all()
    assert ((y.double() - expected.double()).norm() / expected.double().norm()).item() < FAR[dtype]


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        *(pytest.param(case, torch.bfloat16, id=str(case)) for case in CASES),
        *(pytest.param(CASES[0], dtype, id=str(dtype)) for dtype in (torch.float16, torch.float64)),
        *(pytest.param(case, torch.float64, id=f"{case}-float64", marks=pytest.mark.whole) for case in CASES[1:]),
    ],
)
def test_every_form_runs_in_another_precision(case, dtype, tmp_path):
    """The default controller divided by a norm of float32, and a file was read back as float32."""
    mutator, x, c = made(**case)
    sample = {"a": "c3"}
    with mutator.using(sample):
        expected = mutator(x, context=c)
    changed = copy.deepcopy(mutator).to(dtype)
    with changed.using(sample):
        assert_near(changed(to(x, dtype), context=to(c, dtype)), expected, dtype)
    frozen = changed.freeze(sample)
    export.save(frozen, tmp_path)
    loaded = load(tmp_path)
    for network in (frozen, loaded, mutator.freeze(sample).to(dtype)):
        assert_near(network(to(x, dtype), to(c, dtype)), expected, dtype)
    assert torch.equal(loaded(to(x, dtype), to(c, dtype)), frozen(to(x, dtype), to(c, dtype)))


@pytest.mark.parametrize("dtype", FAR)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_search_goes_on_in_another_precision(case, dtype):
    mutator, x, c = made(**case)
    mutator.train().to(dtype)
    for _ in range(3):
        mutator.reset()
        y = mutator(to(x, dtype), context=to(c, dtype))
        assert y.dtype == dtype and y.isfinite().all()
        y.square().mean().backward()
    mutator.status()
    for one in mutator.space.parameters():
        assert one.dtype == dtype and (one.grad is None or one.grad.isfinite().all())


def test_a_network_of_several_types_is_read_back_as_it_was(tmp_path):
    mutator, x, c = made(base="learned")
    network = mutator.freeze({"a": "c3"})
    network.bfloat16().network.static.float()  # as BatchNorms are kept
    export.save(network, tmp_path, example=(x.bfloat16(), c.bfloat16()))
    loaded = load(tmp_path)
    found, given = loaded.state_dict(), network.state_dict()
    assert {one.dtype for one in given.values()} >= {torch.bfloat16, torch.float32}
    assert sorted(str(one.dtype) for one in found.values()) == sorted(str(one.dtype) for one in given.values())
