"""What of NNI itself is worked around: what is broken in it today, and the order in which it must be imported.

Nothing of ours lives here that would make sense with a sound NNI.
"""

from pathlib import Path

__all__ = ["MANAGER"]

MANAGER = Path(__file__).with_name("manager.js")
"""Node preload for NNI's manager."""
