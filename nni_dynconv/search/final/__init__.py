"""The last step of a search, over a trained supernet: drawing or evolution, losses and costs, fronts, proxies.

Nothing is trained here.
"""

from .contenders import Compared, Contender, table
from .loop import evolve
from .proxies import PROXIES, proxy_scores
from .searching import FinalSearch, is_plain

__all__ = ["PROXIES", "Compared", "Contender", "FinalSearch", "evolve", "is_plain", "proxy_scores", "table"]
