"""What of NNI itself is worked around: what is broken in it today, and the order in which it must be imported.

Nothing of ours lives here that would make sense with a sound NNI.
"""
