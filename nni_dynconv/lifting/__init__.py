"""Networks that people have: a dynamic twin for each module, changes in place, and the loops of NNI 2.x.

What a twin computes is in ``ops``; here stands only which takes whose place.
"""

from .lifting import Kept, Lifted, lift, unlift

__all__ = ["Kept", "Lifted", "lift", "unlift"]
