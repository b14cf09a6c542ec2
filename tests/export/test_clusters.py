"""Few sets of weights: contexts that differ in kind are told apart, what is saved is the same, and losses are told."""

from __future__ import annotations

import json
import math

import pytest
import torch
from often import by_default, each_once
from spaces import Everything, OneChoice, image, vector

import nni_dynconv
from nni_dynconv import DynamicWeightMutator, OwnInputContext, RandomSampler, VectorContext, export
from nni_dynconv.errors import ContextError
from nni_dynconv.export.elsewhere.clustering import SKETCH, _sketched
from nni_dynconv.export.elsewhere.losing import Clusters, Few
from nni_dynconv.generation import Call

KINDS = torch.tensor([[3.0, 0, 0, 0, 0], [0, -3.0, 0, 0, 0], [0, 0, 3.0, -3.0, 0]])


def network_of(space=Everything, encoder=None, sample=None, **settings):
    encoder = VectorContext(5, 8) if encoder is None else encoder
    mutator = DynamicWeightMutator(space(), sampler=RandomSampler(0), context=encoder, **settings).eval()
    return mutator.freeze(mutator.reset() if sample is None else sample)


def contexts(each=30, spread=0.02):
    """Return contexts of three kinds, in batches that mix them."""
    drawn = KINDS.repeat(each, 1) + spread * torch.randn(3 * each, 5)
    return list(drawn.split(16))


def test_contexts_of_few_kinds_lose_next_to_nothing_with_as_many_sets_and_much_with_fewer():
    network, seen = network_of(base="learned"), contexts()
    with torch.no_grad():
        wanted = network(image(9), KINDS.repeat(3, 1))
        lost = []
        for count in (1, 3):
            few = export.cluster(network, seen, count)
            lost.append(float((few(image(9), KINDS.repeat(3, 1)) - wanted).abs().max() / wanted.abs().max()))
    assert lost[1] < 0.05 < lost[0]


def test_each_context_has_the_weights_of_its_own_cluster_alone_and_among_others():
    few = export.cluster(network_of(base="learned"), contexts(), 3)
    x, given = image(6), KINDS.repeat(2, 1)
    with torch.no_grad():
        together = few(x, given)
        torch.testing.assert_close(together, torch.cat([few(a[None], c[None]) for a, c in zip(x, given, strict=True)]))
        torch.testing.assert_close(few(x, KINDS, torch.arange(6) % 3), together)
    which = few.source.controller.which(few.source.codes(given))
    assert sorted(which[:3].tolist()) == [0, 1, 2] and which[:3].tolist() == which[3:].tolist()


def saved(few, folder):
    export.save(few, folder, example=(image(4), KINDS[[0, 1, 2, 0]]))
    return nni_dynconv.load(folder)


@pytest.mark.parametrize("delta", by_default("scale", of=["full", "scale", "low_rank"]))
def test_what_is_saved_and_loaded_is_the_same(delta, tmp_path):
    few = export.cluster(network_of(OneChoice, sample={"op": "5x5"}, base="learned", delta=delta), contexts(), 3)
    again = saved(few, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again(image(3), KINDS), few(image(3), KINDS))
    assert not any("router" in name for name, _ in again.named_parameters())
    assert export.bake(again, KINDS[:1])(image(2)).shape == again(image(2), KINDS[:2]).shape


@pytest.mark.whole
@each_once(form=["dynamic", "grouped", "baked"], delta=["full", "scale", "low_rank"], otherwise="slow")
def test_what_is_exported_is_the_same(delta, form, tmp_path):
    pytest.importorskip("onnxruntime")
    few = export.cluster(network_of(OneChoice, sample={"op": "5x5"}, base="learned", delta=delta), contexts(), 3)
    found = export.export_onnx(
        saved(few, tmp_path), tmp_path / "model.onnx", export.example_in(tmp_path), form, batch=3
    )
    assert found.error < 1e-4


def test_the_network_that_is_clustered_stays_as_it_is():
    network = network_of(base="learned")
    before = network.state_dict()
    export.cluster(network, contexts(), 2)
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())


def test_a_network_with_an_encoder_of_ones_own_is_loaded_clustered_and_saved_again(tmp_path):
    """What was read from a file took its question for a program of one sample for a decision of the network's."""

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.out_dim, self.norm, self.map = 8, torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 8)

        def forward(self, c):
            return self.map(self.norm(c)) * 2

    export.save(network_of(OneChoice, Own(), {"op": "3x3"}), tmp_path / "a", example=(image(4), vector(4)))
    few = export.cluster(nni_dynconv.load(tmp_path / "a"), contexts(), 3)
    export.save(few, tmp_path / "b", example=(image(4), vector(4)))
    again = nni_dynconv.load(tmp_path / "b")
    for rows in (1, 3):
        torch.testing.assert_close(again(image(rows), KINDS[:rows]), few(image(rows), KINDS[:rows]))


def test_fewer_sets_are_made_where_fewer_contexts_differ():
    few = export.cluster(network_of(), [KINDS[:2].repeat(5, 1)], 4)
    assert few.source.controller.clusters == 2


def test_what_cannot_be_clustered_is_refused():
    with pytest.raises(ContextError, match="4 clusters of 3 contexts: give more contexts, or take fewer"):
        export.cluster(network_of(), [KINDS], 4)
    with pytest.raises(ContextError, match="no contexts to cluster"):
        export.cluster(network_of(), [], 1)
    with pytest.raises(ContextError, match="each layer's own input"):
        export.cluster(network_of(OneChoice, OwnInputContext(8), {"op": "3x3"}), [KINDS], 2)


def test_sums_with_signs_keep_the_distances_of_weights():
    values = torch.randn(6, 20 * SKETCH)
    ratio = torch.pdist(_sketched(values)) / torch.pdist(values)
    assert float((ratio - 1).abs().max()) < 0.15
    assert torch.equal(_sketched(values[:, :SKETCH]), values[:, :SKETCH])


# What is lost


def table(mode="max", tolerance=None, name="test_psnr/a"):
    rows = [Few(1, {name: 30.0}, 2.0), Few(2, {name: 31.95}, 1.5), Few(4, {name: 31.99}, 1.2)]
    return Clusters({name: 32.0}, rows, mode, "test", 100, tolerance)


def test_the_fewest_sets_within_the_tolerance_are_recommended_or_none():
    assert table().recommended == 2 and "Recommended: 2, the fewest that lose no more than 0.1" in str(table())
    assert table(tolerance=0.02).recommended == 4
    none = table(tolerance=0.001)
    assert none.recommended is None and "None is recommended: each loses more than is allowed, 0.001" in str(none)
    assert table("min").recommended == 1  # less is better there
    assert table(name="val_acc").recommended == 2  # 1 % of 32


def test_a_result_that_is_no_number_is_not_recommended():
    broken = Clusters({"val_loss": 1.0}, [Few(1, {"val_loss": math.nan}, 1.0)], "min", "validation", 9)
    assert broken.recommended is None
    assert json.loads(broken.to_json())["rows"][0]["metrics"]["val_loss"] is None


def test_each_number_of_sets_is_measured_beside_the_network_itself():
    network = network_of(OneChoice, sample={"op": "3x3"})
    x, given = image(6), KINDS.repeat(2, 1)
    wanted = network(x, given).detach()

    def measure(tried):
        with torch.no_grad():
            return {"loss": float((tried(x, given) - wanted).square().mean())}

    call = Call((x,), {}, given)
    found, made = export.try_clusters(network, contexts(), measure, call, mode="min", tolerance=1e-4)
    assert [row.clusters for row in found.rows] == [1, 2, 4, 8, 16] == list(made)
    assert found.dynamic["loss"] < 1e-9 and found.recommended == 4 and found.contexts == 90
    assert found.rows[0].metrics["loss"] > 10 * found.rows[2].metrics["loss"]
    assert all(row.faster > 0 for row in found.rows)
    few, _ = export.try_clusters(network, [KINDS], measure, call, mode="min")
    assert [row.clusters for row in few.rows] == [1, 2]
