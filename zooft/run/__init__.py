"""A run's folder, complete or not there, and what an interrupted one resumes from."""
