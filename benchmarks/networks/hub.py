"""Spaces of NNI's hub: each as NNI's own supernet of static weights, which samples paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni.nas.hub.pytorch as hub
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.strategy import RandomOneShot

__all__ = ["SPACES", "path_sampled"]

SPACES: dict[str, Callable[[], ModelSpace]] = {
    "proxylessnas": lambda: hub.ProxylessNAS(num_labels=10),
    "darts_cells": lambda: hub.DARTS(width=16, num_cells=6, dataset="cifar"),
}


def path_sampled(make: Callable[[], ModelSpace], sample: Mapping[str, Any]) -> ModelSpace:
    """Return NNI's path-sampling supernet of a space, in which one architecture runs."""
    space, strategy = make(), RandomOneShot()
    strategy.mutate_model(space)
    for module in space.modules():
        if isinstance(module, BaseSuperNetModule):
            module.resample(memo=dict(sample))
    return space
