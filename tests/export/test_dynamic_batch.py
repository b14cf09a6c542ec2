"""`torch.export` and the ONNX exporter take a network with a batch of any size, and the results compute the same."""

from __future__ import annotations

import pytest
import torch
from often import by_default
from spaces import CellSpace, Everything, OneChoice, image, vector

from nni_dynconv import DynamicWeightMutator, OwnInputContext, RandomSampler, VectorContext
from nni_dynconv.generation import controllers

BATCH = torch.export.Dim("batch")
CONTROLLERS = [name for name in controllers.__all__ if name != "Controller"]


def make(space=OneChoice, context=True, **settings):
    encoder = VectorContext(5, 8) if context is True else context
    mutator = DynamicWeightMutator(space(), sampler=RandomSampler(0), context=encoder, **settings).eval()
    return mutator, {"op": "5x5"} if space is OneChoice else mutator.reset()


def assert_any_batch(module, draw, shapes, strict=False):
    """Export with the inputs of three samples, and compare for other numbers of them."""
    exported = torch.export.export(module, draw(3), dynamic_shapes=shapes, strict=strict).module()
    for batch in (1, 2, 40):
        inputs = draw(batch)
        torch.testing.assert_close(exported(*inputs), module(*inputs), rtol=1e-4, atol=1e-5)


def pair(batch):
    return image(batch), vector(batch)


@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects")  # the scope, opened and closed
@pytest.mark.parametrize(
    ("space", "strict"),
    [(CellSpace, False), *(pytest.param(Everything, one, marks=pytest.mark.whole) for one in (False, True))],
)
def test_a_frozen_network_is_exported(space, strict):
    """Each used to be bound to the batch that it was exported with."""
    mutator, sample = make(space, base="learned")
    assert_any_batch(mutator.freeze(sample), pair, ({0: BATCH}, {0: BATCH}), strict)


@pytest.mark.parametrize("name", by_default(CONTROLLERS[0], of=CONTROLLERS))
def test_every_controller_is_exported(name):
    mutator, sample = make(Everything, controller=getattr(controllers, name)())
    assert_any_batch(mutator.freeze(sample), pair, ({0: BATCH}, {0: BATCH}))


@pytest.mark.whole
def test_a_plan_of_more_values_than_are_made_at_once_is_exported():
    """How many sites are made in one call depends on the number of sets, and used to bind it."""
    mutator, sample = make(Everything)
    network = mutator.freeze(sample)
    sites = list(network.source.sites.values())
    assert len(network.source._runs(sites, sets=1000)) > len(network.source._runs(sites, sets=1))
    exported = torch.export.export(network, pair(3), dynamic_shapes=({0: BATCH}, {0: BATCH})).module()
    torch.testing.assert_close(exported(*pair(1000)), network(*pair(1000)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("one", [vector(1), vector(1)[0]])
def test_one_context_serves_a_batch_of_any_size(one):
    mutator, sample = make()
    assert_any_batch(mutator.freeze(sample), lambda batch: (image(batch), one), ({0: BATCH}, None))


def test_an_index_and_its_contexts_are_of_any_number():
    mutator, sample = make()
    contexts = torch.export.Dim("contexts")

    def draw(batch):
        return image(batch), vector(max(2, batch // 2)), torch.arange(batch) % 2

    assert_any_batch(mutator.freeze(sample), draw, ({0: BATCH}, {0: contexts}, {0: BATCH}))


def test_weights_made_from_each_layers_own_input_are_exported():
    mutator, sample = make(context=OwnInputContext(8))
    assert_any_batch(mutator.freeze(sample), lambda batch: (image(batch),), ({0: BATCH},))


@pytest.mark.whole
def test_a_supernet_is_exported_as_the_architecture_in_use():
    mutator, sample = make(Everything)

    class Paired(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.space = mutator.space

        def forward(self, x, context):
            return self.space((x, context))

    with mutator.using(sample):
        assert_any_batch(Paired(), pair, ({0: BATCH}, {0: BATCH}))


@pytest.mark.filterwarnings("ignore")  # of what the exporter and torch think of each other
@pytest.mark.whole  # `test_elsewhere.py` runs the first of them in ONNX Runtime
@pytest.mark.parametrize("name", by_default("ChunkedController", of=CONTROLLERS, otherwise="slow"))
def test_onnx_computes_what_the_network_does(name, tmp_path):
    reference = pytest.importorskip("onnx.reference")
    pytest.importorskip("onnxscript")
    mutator, sample = make(Everything, controller=getattr(controllers, name)())
    network, file = mutator.freeze(sample), str(tmp_path / "network.onnx")
    torch.onnx.export(network, pair(3), file, dynamic_shapes=({0: BATCH}, {0: BATCH}), dynamo=True, verbose=False)
    model = reference.ReferenceEvaluator(file)
    for batch in (1, 2, 5):
        x, context = pair(batch)
        (found,) = model.run(None, dict(zip(model.input_names, (x.numpy(), context.numpy()), strict=True)))
        torch.testing.assert_close(torch.tensor(found), network(x, context).detach(), rtol=1e-4, atol=1e-5)
