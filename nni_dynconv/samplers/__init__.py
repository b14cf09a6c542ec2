"""Samplers: distributions over architectures."""

from .base import Sampler
from .choices import Choice, check_sample, choices_of
from .darts import DartsSampler
from .differentiable import DifferentiableSampler
from .enas import EnasSampler
from .gdas import GdasSampler
from .random import RandomSampler

__all__ = [
    "Choice",
    "DartsSampler",
    "DifferentiableSampler",
    "EnasSampler",
    "GdasSampler",
    "RandomSampler",
    "Sampler",
    "check_sample",
    "choices_of",
]
