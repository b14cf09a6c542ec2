"""Suites that an op, a sampler or a controller of one's own inherits; only tests import them.

Tests of this package itself are in ``tests/``.
"""

from .suites import ControllerSuite, OpSuite, SamplerSuite

__all__ = ["ControllerSuite", "OpSuite", "SamplerSuite"]
