"""What is asked for and who answers: specs, sites and plans, the open scope of a forward, samples that share a set.

How weights come about is not known here, and no operator is.
"""
