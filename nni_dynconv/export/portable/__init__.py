"""Networks as graphs of torch's operators: traced, written as data, and run without the class that defined them."""

from .describing import describe_network, signature_of
from .running import Portable

__all__ = ["Portable", "describe_network", "signature_of"]
