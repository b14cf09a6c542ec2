"""Examples, from the quickstart to single parts."""
