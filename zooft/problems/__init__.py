"""Kinds of answers, each behind the same contract as a stranger's; nothing else in the core imports them."""
