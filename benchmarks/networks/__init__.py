"""Whole networks: a training step with weights of each sample's own against the static one, and what is written by hand."""
