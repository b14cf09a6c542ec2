"""Variances at the start are those of the papers: of scales, of inputs, and of what flows through an op and back."""

from __future__ import annotations

import pytest
import torch

from nni_dynconv import ChunkedController, DynamicWeightMutator, ExpertsController, VectorContext, ops
from nni_dynconv.errors import ConfigError
from nni_dynconv.generation.controllers.pieces import CodeInput, context_map, linear
from nni_dynconv.generation.decision import site_of
from nni_dynconv.generation.initialisation import base_of, scale_of, stds_of
from nni_dynconv.settings import TABLES, parse_named
from nni_dynconv.sites.spec import Site, WeightSpec, split


def scales(op, rule):
    return {name: one.unique() for name, one in split(scale_of(site_of(op), rule), op.weight_specs()).items()}


CONVOLUTIONS = {
    "dense": lambda: ops.DynamicConv2d(12, 20, 3, padding=1, bias=False),
    "grouped": lambda: ops.DynamicConv2d(12, 24, 5, padding=2, groups=4, bias=False),
    "depthwise": lambda: ops.DynamicConv2d(48, 48, 3, padding=1, groups=48, bias=False),
    "strided": lambda: ops.DynamicConv2d(12, 20, 4, stride=2, padding=1, bias=False),
    "line": lambda: ops.DynamicConv1d(12, 20, 5, padding=2, bias=False),
    "volume": lambda: ops.DynamicConv3d(6, 12, 3, padding=1, bias=False),
    "transposed": lambda: ops.DynamicConvTranspose2d(12, 20, 4, stride=2, padding=1, bias=False),
    "grouped transposed": lambda: ops.DynamicConvTranspose2d(12, 24, 4, stride=2, padding=1, groups=4, bias=False),
    "linear": lambda: ops.DynamicLinear(60, 40, bias=False),
}


RULES = ["hyperfan_in", "hyperfan_out", "ghn", "torch"]


def passed(op, rule):
    """Mean square of an output, and of an input's gradient for an output gradient of unit size, far from any border."""
    torch.manual_seed(0)
    rank = len(getattr(op, "kernel_size", ()))
    x = torch.randn(8, op.weight_specs()[0].fan_in if not rank else op.in_channels, *[12] * rank, requires_grad=True)
    weight = torch.randn(8, op.num_generated) * scale_of(site_of(op), rule)
    y = op(x, weight)
    y.backward(torch.randn_like(y))
    return mean_square_inside(y.detach(), rank), mean_square_inside(x.grad, rank)


def mean_square_inside(x, rank):
    rims = [size // 3 for size in x.shape[2:]] if rank else []
    return float(x[(..., *(slice(rim, -rim) for rim in rims))].square().mean())


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_hyperfan_in_keeps_what_goes_forward(name):
    assert 0.7 < passed(CONVOLUTIONS[name](), "hyperfan_in")[0] < 1.4


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_hyperfan_out_keeps_what_goes_backward(name):
    assert 0.7 < passed(CONVOLUTIONS[name](), "hyperfan_out")[1] < 1.4


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (4, 3), (2, 3), (3, 3)])
def test_taps_that_meet_one_place_count_on_the_mean(kernel, stride):
    """They were rounded up: of a kernel of 3 with a stride of 2 an output had a variance of 0.55."""
    op = ops.DynamicConvTranspose2d(12, 20, kernel, stride=stride, bias=False)
    assert 0.8 < passed(op, "hyperfan_in")[0] < 1.25
    op = ops.DynamicConv2d(12, 20, kernel, stride=stride, bias=False)
    torch.manual_seed(0)
    x = torch.randn(8, 12, 12 * stride + kernel, 12 * stride + kernel, requires_grad=True)
    y = op(x, torch.randn(8, op.num_generated) * scale_of(site_of(op), "hyperfan_out"))
    y.backward(torch.randn_like(y))
    inside = x.grad[:, :, 3 * stride : 9 * stride, 3 * stride : 9 * stride]  # whole periods of the stride
    assert 0.8 < float(inside.square().mean()) < 1.25


@pytest.mark.parametrize("nonlinearity", ["relu", "tanh", "leaky_relu", "selu"])
def test_the_gain_is_the_one_that_torch_has_and_the_first_weight_of_an_op_has_it(nonlinearity):
    gain = torch.nn.init.calculate_gain(nonlinearity)
    for rule in ("hyperfan_in", "hyperfan_out"):
        site = site_of(ops.DynamicSepConv(8, 8, 3))
        plain, gained = stds_of(site, rule), stds_of(site, rule, nonlinearity)
        assert gained == pytest.approx({"depthwise": plain["depthwise"] * gain, "pointwise": plain["pointwise"]})


def test_a_plain_stack_with_relus_keeps_its_size():
    """Through 20 layers and without biases 0.001 of it was left."""
    left = {}
    for nonlinearity in ("linear", "relu"):
        torch.manual_seed(0)
        x = torch.randn(4, 64, 6, 6)
        for _ in range(20):
            op = ops.DynamicConv2d(64, 64, 3, padding="same", padding_mode="circular", bias=False)
            x = op(x.relu(), torch.randn(op.num_generated) * scale_of(site_of(op), "hyperfan_in", nonlinearity))
        left[nonlinearity] = float(x.square().mean().sqrt())
    assert left["linear"] < 0.01 and 0.4 < left["relu"] < 2.5


def test_a_nonlinearity_that_the_rule_does_not_ask_for_is_refused():
    with pytest.raises(ConfigError, match="`nonlinearity` is 'relu', but `scale_rule` is 'ghn', which has one size"):
        scale_of(site_of(CONVOLUTIONS["dense"]()), "ghn", "relu")


@pytest.mark.parametrize("base", ["none", "learned"])
def test_factors_tell_how_many_outputs_they_reach(base):
    """Experts of factors with `hyperfan_out` blamed the op, which does tell."""
    from spaces import OneChoice

    torch.manual_seed(0)
    controller = ExpertsController(scale_rule="hyperfan_out")
    mutator = DynamicWeightMutator(OneChoice(), controller=controller, base=base, delta="low_rank", rank=1)
    sites = list(mutator.source.sites.values())
    for site, made in zip(sites, mutator.source.make(sites, None), strict=True):
        expected = split(scale_of(site, "hyperfan_out"), site.specs)
        for name, tensor in made.items():
            assert float(tensor.detach().square().mean().sqrt()) < 4 * float(expected[name].mean()), (site.name, name)


@pytest.mark.parametrize("name", ["dense", "grouped", "strided", "transposed", "linear"])
def test_ghn_doubles_what_goes_forward_for_the_relu_that_follows(name):
    assert 1.4 < passed(CONVOLUTIONS[name](), "ghn")[0] < 2.8


def test_the_formulas_of_the_rules():
    op = ops.DynamicConv2d(8, 32, 3)
    expected = {
        "hyperfan_in": (1 / 72, 1 / (3 * 72)),
        "hyperfan_out": (1 / 288, 1 - 72 / 288),
        "ghn": (2 / 72, 0.04),
        "torch": (1 / (3 * 72), 1 / (3 * 72)),
    }
    for rule, (weight, bias) in expected.items():
        found = scales(op, rule)
        torch.testing.assert_close(found["weight"].square(), torch.tensor([weight]))
        torch.testing.assert_close(found["bias"].square(), torch.tensor([bias]))
    assert scales(ops.DynamicLinear(8, 4), "hyperfan_out")["bias"].square().item() == pytest.approx(1 / 24)  # the least
    assert scales(ops.DynamicBatchNorm2d(4), "hyperfan_in")["scale"].item() == pytest.approx(0.1)
    assert scales(ops.DynamicBatchNorm2d(4), "hyperfan_out")["shift"].item() == pytest.approx(0.1)
    assert scales(ops.DynamicBatchNorm2d(4), "ghn")["scale"].item() == pytest.approx(0.25)
    assert scales(CONVOLUTIONS["depthwise"](), "ghn")["weight"].square().item() == pytest.approx(1 / 9)


@pytest.mark.parametrize("rule", RULES)
def test_a_network_has_the_weights_that_its_controllers_rule_says(rule):
    from spaces import OneChoice

    torch.manual_seed(0)
    controller = ChunkedController(scale_rule=rule)
    mutator = DynamicWeightMutator(OneChoice(), controller=controller, context=VectorContext(5, 8))
    context = torch.randn(64, 5)
    made = mutator.source.make(list(mutator.source.sites.values()), mutator.context(context))
    for site, tensors in zip(mutator.source.sites.values(), made, strict=True):
        expected = split(scale_of(site, rule), site.specs)
        for name, tensor in tensors.items():
            size, wanted = float(tensor.detach().square().mean().sqrt()), float(expected[name].mean())
            assert 0.5 * wanted <= size <= 2 * wanted, (site.name, name)
    frozen = mutator.freeze({"op": "5x5"})
    assert frozen.source.controller.scale_rule == rule


@pytest.mark.parametrize("rule", RULES)
def test_every_tensor_learns_also_the_bias_of_an_op_of_more_inputs_than_outputs(rule):
    """Under `hyperfan_out` the scale of such a bias was 0, so that it was 0 for ever."""
    torch.manual_seed(0)
    op = ops.DynamicLinear(8, 4)
    made = torch.randn(op.num_generated, requires_grad=True)
    op(torch.randn(5, 8), made * scale_of(site_of(op), rule)).square().sum().backward()
    assert (made.grad != 0).all()


@pytest.mark.parametrize("name", ["dense", "depthwise", "grouped", "strided", "linear"])
def test_under_torch_a_learned_base_is_as_large_as_what_torchs_own_layer_starts_with(name):
    op = CONVOLUTIONS[name]()
    weight = op.weight_specs()[0]
    own = torch.empty(weight.shape)
    torch.nn.init.kaiming_uniform_(own, a=5**0.5)  # Conv2d.reset_parameters, Linear.reset_parameters
    torch.manual_seed(0)
    base = split(base_of(site_of(op), "torch"), op.weight_specs())[weight.name]
    assert base.std().item() == pytest.approx(own.std().item(), rel=0.2)
    bound = weight.fan_in**-0.5
    assert 0.8 * bound < base.abs().max() <= bound


def test_an_op_that_tells_no_fan_out_is_named():
    site = Site("body/affine", "Affine", (WeightSpec("scale", (4, 4), 4),))
    message = "but `scale` of site `body/affine` .Affine. does not tell. Give its WeightSpec a `fan_out`, or take `hyp"
    with pytest.raises(ConfigError, match=message):
        scale_of(site, "hyperfan_out")


# What controllers see


def test_the_magnitude_invariant_code_has_one_norm_for_every_context():
    codes = torch.cat([torch.zeros(1, 6), torch.randn(20, 6), 1e4 * torch.randn(20, 6)])
    encoded = CodeInput(6, "magnitude_invariant")(codes)
    torch.testing.assert_close(encoded.norm(dim=1), torch.full((41,), 12**0.5))
    angle = torch.tensor(0.3).sigmoid() * torch.pi / 2
    expected = 2**0.5 * torch.stack([angle.cos(), angle.sin()])
    torch.testing.assert_close(CodeInput(1, "magnitude_invariant")(torch.tensor([0.3]))[:2], expected)
    short = CodeInput(1, "magnitude_invariant")(torch.tensor([[0.0], [0.3], [50.0]]))
    torch.testing.assert_close(short.square().mean(1), torch.ones(3))


def test_the_standardised_code_has_one_norm_and_a_code_of_length_one_stays():
    encoded = CodeInput(6)(5 + 3 * torch.randn(20, 6))[:, :6]
    torch.testing.assert_close(encoded.square().mean(1), torch.ones(20), rtol=1e-3, atol=1e-3)
    assert CodeInput(1)(torch.tensor([3.0]))[0].item() == 3.0


@pytest.mark.parametrize("encoding", ["layer_norm", "magnitude_invariant"])
def test_a_context_map_gives_the_variance_that_it_is_told(encoding):
    torch.manual_seed(0)
    found = context_map(24, 400, 0.5, encoding)(10 * torch.randn(50, 24)).detach()
    assert 0.4 < float(found.square().mean()) < 0.6
    assert context_map(None, 400, 0.5, encoding) is None


def test_a_linear_map_gives_the_variance_that_it_is_told():
    torch.manual_seed(0)
    assert 2.5 < float(linear(64, 2000, gain=3.0)(torch.ones(64)).var()) < 3.5


# In a YAML


def test_rules_are_checked_in_a_yaml():
    assert (
        parse_named("controller", {"name": "coordinate", "nesting": "transform"}, "x.yml").build().nesting
        == "transform"
    )
    for section, key, words in (
        ({"name": "coordinate", "nesting": "center"}, "nesting", "one of 'centre', 'transform', 'free'"),
        ({"name": "experts", "routing": "top1"}, "routing", "one of 'sigmoid', 'softmax', 'linear'"),
        ({"name": "flat", "scale_rule": "he"}, "scale_rule", "one of 'hyperfan_in', 'hyperfan_out', 'ghn', 'torch'"),
        ({"name": "low_rank", "encoding": 3}, "encoding", "one of 'layer_norm', 'magnitude_invariant'"),
    ):
        with pytest.raises(ConfigError, match=f"`{key}` in x.yml, section `controller` is .* but must be {words}"):
            parse_named("controller", section, "x.yml")


@pytest.mark.parametrize("name", TABLES["controller"])
def test_a_controller_of_a_yaml_has_the_defaults_of_its_class(name):
    import dataclasses
    import inspect

    built = parse_named("controller", name, "x.yml").build()
    arguments = inspect.signature(type(built)).parameters
    settings = {one.name: one.default for one in dataclasses.fields(TABLES["controller"][name].settings)}
    assert settings == {key: one.default for key, one in arguments.items()}
