"""What is asked of an evaluator's Lightning module outside of Lightning's loop."""

from __future__ import annotations

import torch
from torch import nn
from toy_task import ToyModule

from nni_dynconv.search.lightning import optimizers_of, replaced, silent


def test_optimizers_are_found_in_every_form_that_lightning_takes():
    first, second = (torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1) for _ in range(2))
    assert optimizers_of([first, second]) == [first, second]
    assert optimizers_of([{"optimizer": first}, {"optimizer": second}]) == [first, second]
    assert optimizers_of(None) == []


def test_a_silent_module_logs_nothing_and_is_afterwards_what_it_was():
    """Its `log` used to stay in the object, where it hid a subclass's or a later patch of the class's."""
    module = ToyModule()
    before = dict(vars(module))
    with silent(module):
        module.log("loss", 1.0)
        assert "log" in vars(module)
    assert vars(module) == before


def test_what_was_replaced_in_the_object_before_comes_back():
    module = nn.Identity()
    with replaced(module, "extra_repr", lambda: "outer"):
        with replaced(module, "extra_repr", lambda: "inner"):
            assert module.extra_repr() == "inner"
        assert module.extra_repr() == "outer"
    assert module.extra_repr() == ""
