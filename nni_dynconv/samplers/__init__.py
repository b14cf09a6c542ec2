"""Samplers: distributions over architectures, and how they learn.

They know labels and candidates, and no network, so that they can live in a tuner.
"""

from . import distributed
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
    "distributed",
]
