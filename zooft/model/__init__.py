"""A zoo's backbone with a new head, what of it is frozen, and what it sees."""
