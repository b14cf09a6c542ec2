"""A door: what it names lives in ``nni_dynconv.lifting.nni2``."""

from .lifting.nni2 import *  # noqa: F403
from .lifting.nni2 import __all__ as __all__
