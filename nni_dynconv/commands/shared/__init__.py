"""What several commands share: arguments and options, where they stand, what they tell. No command is here."""

from .arguments import Config, Json, Output, Port, Timeout
from .entering import enter
from .quiet import hushed, quiet
from .telling import aside, fail, in_words, say, write_json

__all__ = [
    "Config",
    "Json",
    "Output",
    "Port",
    "Timeout",
    "aside",
    "enter",
    "fail",
    "hushed",
    "in_words",
    "quiet",
    "say",
    "write_json",
]
