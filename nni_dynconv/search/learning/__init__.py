"""What is learned in a step of a search, and at what pace the sampler does."""

from .step import Learning

__all__ = ["Learning"]
