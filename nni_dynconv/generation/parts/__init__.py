"""What controllers and encoders are made of and keep between versions: running statistics, and states of earlier files.

Nothing here makes a weight.
"""

from .standardise import Gathered, Standardise
from .upgrading import Upgrading, upgraded

__all__ = ["Gathered", "Standardise", "Upgrading", "upgraded"]
