"""Where the time and the memory of a training step go, site by site, as one real step shows it."""

from .explanation import Explanation, SiteTaken
from .measuring import explain_step

__all__ = ["Explanation", "SiteTaken", "explain_step"]
