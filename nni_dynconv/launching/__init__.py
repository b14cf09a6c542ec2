"""Our side of an experiment: start it, watch it, stop it, fetch what it left, on remote machines too.

What a trial does is not known here, and torch is not loaded.
"""
