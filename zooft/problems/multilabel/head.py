"""The head's output: training names it, all other parts read it."""

HEAD = "logits"
"""``(N, L)``."""
