"""Search networks whose weights another network makes: a plugin for Microsoft NNI 3.0.

The public names are loaded on first use (PEP 562): NNI gives a tuner process ten seconds to connect, and naming the
tuner must load neither torch nor Lightning.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_WINGS = {
    "sites": ("repeated",),
    "ops": (
        "DynamicBatchNorm1d",
        "DynamicBatchNorm2d",
        "DynamicBatchNorm3d",
        "DynamicConv1d",
        "DynamicConv2d",
        "DynamicConv3d",
        "DynamicConvTranspose1d",
        "DynamicConvTranspose2d",
        "DynamicConvTranspose3d",
        "DynamicDilConv",
        "DynamicGroupNorm",
        "DynamicInstanceNorm1d",
        "DynamicInstanceNorm2d",
        "DynamicInstanceNorm3d",
        "DynamicLayerNorm",
        "DynamicLinear",
        "DynamicOp",
        "DynamicPatchConv2d",
        "DynamicSepConv",
    ),
    "samplers": ("DartsSampler", "EnasSampler", "FairSampler", "GdasSampler", "RandomSampler", "Sampler"),
    "generation": (
        "ArchitectureEncoder",
        "BasisController",
        "ChunkedController",
        "Controller",
        "CoordinateController",
        "DynamicNetwork",
        "ExpertsController",
        "FeatureMapContext",
        "FlatController",
        "LowRankController",
        "OwnInputContext",
        "PatchContext",
        "SequenceContext",
        "VectorContext",
    ),
    "supernet": ("DynamicWeightMutator",),
    "lifting": ("lift", "unlift"),
    "keeping": ("Checkpoint",),
    "cost": ("DynamicFlopsProfiler", "DynamicNumParamsProfiler"),
    "search": ("SupernetEvaluator", "compare", "costs_of", "evolve", "smoothness", "train_final"),
    "export": ("load",),
    "diagnosis": ("DiagnosisCallback", "diagnose"),
}
_HOMES = {name: wing for wing, names in _WINGS.items() for name in names}
_MODULES = ("context", "controllers", "errors", "export", "functional", "ops", "samplers", "testing")

__all__ = [*_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module `{__name__}` has no attribute `{name}`")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
