"""A model space as a supernet: NNI's super-modules told by the scope, mixtures, statistics of BatchNorm, the mutator.

Nothing here trains.
"""
