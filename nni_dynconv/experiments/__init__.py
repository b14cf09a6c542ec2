"""NNI's side of an experiment: the tuner, what it proposes, what a trial runs, recovery, registration.

Starting and watching an experiment is the wing ``launching``'s; the tuner's way loads no torch before it connects.
"""
