"""What can be said in a YAML or a constructor: names, types, ranges, references, and the checks of them.

Neither torch nor Lightning nor ``nni.nas`` is imported here, and nothing is built or run.
"""
