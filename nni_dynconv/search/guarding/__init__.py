"""Steps of a search that cannot be taken: named, and left out where that is allowed; nothing is learned from them.

What the evaluator's own code does wrong is told as it is.
"""

from .blame import candidate_of, module_of, site_of
from .guard import Guard
from .numbers import check_parameters

__all__ = ["Guard", "candidate_of", "check_parameters", "module_of", "site_of"]
