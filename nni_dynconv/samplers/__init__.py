"""Samplers: distributions over architectures."""

from .base import Sampler
from .choices import Choice, Choices, check_sample, choices_of
from .darts import DartsSampler
from .differentiable import DifferentiableSampler
from .enas import EnasSampler
from .fair import FairSampler
from .gdas import GdasSampler
from .random import RandomSampler

__all__ = [
    "Choice",
    "Choices",
    "DartsSampler",
    "DifferentiableSampler",
    "EnasSampler",
    "FairSampler",
    "GdasSampler",
    "RandomSampler",
    "Sampler",
    "check_sample",
    "choices_of",
]
