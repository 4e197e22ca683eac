"""The whole story in order: everything that sees the configuration as a whole."""
