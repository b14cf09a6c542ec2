"""Training a supernet to its end: the strategy, its processes and penalties, rankings, and what comes after it.

Which architecture is drawn is a sampler's affair, and experiments of ``nnictl`` are none of this wing's.
"""
