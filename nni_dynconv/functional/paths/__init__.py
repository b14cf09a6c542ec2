"""The ways to compute a planned call: by torch's operators, in blocks, from factors, and by the compiled kernels.

Nothing here chooses: each way is told the sizes that ``planning/`` has checked.
"""
