"""The command line ``nni-dynconv``: arguments in, calls of the other wings, words and exit codes out.

What a command does is not here but in the wing that it calls.
"""
