"""What a call is asked, and by which path it runs: sizes checked once, modes, rules, and what was measured.

Nothing here touches a tensor's values: what computes lies in ``paths/``.
"""
