"""The command line ``nni-dynconv``: arguments in, calls of the other wings, words and exit codes out.

One file a command, put together in ``cli.py``. What a command does is not here but in the wing that it calls; what
takes several of them is in ``examining.py`` and ``ranking.py``.
"""
