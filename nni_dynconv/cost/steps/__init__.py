"""A training step: what it asks of the machine, and what that costs, before one is run."""

from .estimating import Share, StepCost, estimate, estimate_and_warn
from .machine import machine

__all__ = ["Share", "StepCost", "estimate", "estimate_and_warn", "machine"]
