"""A model space as a supernet: NNI's super-modules told by the scope, mixtures, one architecture's BatchNorm, the mutator.

Nothing here trains.
"""
