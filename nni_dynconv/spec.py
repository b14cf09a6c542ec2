"""A door: what it names lives in ``nni_dynconv.sites.spec``."""

from .sites.spec import *  # noqa: F403
from .sites.spec import __all__ as __all__
