"""Whole networks, with weights of each sample's own, against the static ones and against what is written by hand."""
