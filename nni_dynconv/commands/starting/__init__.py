"""Where a user of one's own starts: the command `new`, and the projects that it writes. Nothing is searched here."""

from .new import new

__all__ = ["new"]
