"""How weights come about: contexts and codes, controllers, base and delta, and the network that makes its own.

Nothing here chooses an architecture.
"""
