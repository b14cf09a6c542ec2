"""A door: what it names lives in ``nni_dynconv.generation.context``."""

from .generation.context import *  # noqa: F403
from .generation.context import __all__ as __all__
