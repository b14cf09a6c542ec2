"""Search networks whose weights another network makes: a plugin for Microsoft NNI 3.0.

The public names are loaded on first use (PEP 562): NNI gives a tuner process ten seconds to connect, and naming the
tuner must load neither torch nor Lightning.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "ArchitectureEncoder": "generation.architecture",
    "ChunkedController": "generation.controllers",
    "Controller": "generation.controllers",
    "CoordinateController": "generation.controllers",
    "DartsSampler": "samplers",
    "DiagnosisCallback": "diagnosis",
    "DynamicBatchNorm1d": "ops",
    "DynamicBatchNorm2d": "ops",
    "DynamicBatchNorm3d": "ops",
    "DynamicConv1d": "ops",
    "DynamicConv2d": "ops",
    "DynamicConv3d": "ops",
    "DynamicConvTranspose1d": "ops",
    "DynamicConvTranspose2d": "ops",
    "DynamicConvTranspose3d": "ops",
    "DynamicDilConv": "ops",
    "DynamicFlopsProfiler": "cost.profiler",
    "DynamicGroupNorm": "ops",
    "DynamicInstanceNorm1d": "ops",
    "DynamicInstanceNorm2d": "ops",
    "DynamicInstanceNorm3d": "ops",
    "DynamicLayerNorm": "ops",
    "DynamicLinear": "ops",
    "DynamicNetwork": "generation.network",
    "DynamicNumParamsProfiler": "cost.profiler",
    "DynamicOp": "ops",
    "DynamicSepConv": "ops",
    "DynamicWeightMutator": "supernet.mutator",
    "EnasSampler": "samplers",
    "ExpertsController": "generation.controllers",
    "FairSampler": "samplers",
    "FeatureMapContext": "generation.context",
    "FlatController": "generation.controllers",
    "GdasSampler": "samplers",
    "LowRankController": "generation.controllers",
    "OwnInputContext": "generation.context",
    "RandomSampler": "samplers",
    "Sampler": "samplers",
    "SequenceContext": "generation.context",
    "SupernetEvaluator": "search.after_search",
    "VectorContext": "generation.context",
    "diagnose": "diagnosis",
    "lift": "lifting",
    "load": "export",
    "repeated": "sites",
    "smoothness": "search.smoothing",
    "unlift": "lifting",
}
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
