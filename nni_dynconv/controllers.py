"""A door: what it names lives in ``nni_dynconv.generation.controllers``."""

from .generation.controllers import *  # noqa: F403
from .generation.controllers import __all__ as __all__
