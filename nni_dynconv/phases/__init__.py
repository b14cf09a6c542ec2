"""Where a run is: its phases tell it, a file carries it to another process, a line shows it.

What a phase does is the wing's that opens it; nothing is trained or measured here, and torch is not loaded.
"""

from .carrying import STATE_FILE, carried, read_state
from .showing import Line, shown
from .telling import Phase, State, advance, phase, watching

__all__ = ["STATE_FILE", "Line", "Phase", "State", "advance", "carried", "phase", "read_state", "shown", "watching"]
