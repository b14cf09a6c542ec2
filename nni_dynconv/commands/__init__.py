"""The command line ``nni-dynconv``: arguments in, calls of the other wings, words and exit codes out.

What a command does is in the wing that it calls.
"""
