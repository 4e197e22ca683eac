"""Files and sequences: whole or not at all, larger than memory, safe among processes."""
