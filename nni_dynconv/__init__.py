"""Search networks whose weights another network makes: a plugin for Microsoft NNI 3.0.

The public names are loaded on first use (PEP 562): NNI gives a tuner process ten seconds to connect, and naming the
tuner must load neither torch nor Lightning.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "ChunkedController": "controllers",
    "Controller": "controllers",
    "DartsSampler": "samplers",
    "DynamicConv2d": "ops",
    "DynamicDilConv": "ops",
    "DynamicLinear": "ops",
    "DynamicNetwork": "network",
    "DynamicOp": "ops",
    "DynamicSepConv": "ops",
    "DynamicWeightMutator": "mutator",
    "EnasSampler": "samplers",
    "FeatureMapContext": "context",
    "GdasSampler": "samplers",
    "RandomSampler": "samplers",
    "Sampler": "samplers",
    "SequenceContext": "context",
    "VectorContext": "context",
    "load": "export",
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
