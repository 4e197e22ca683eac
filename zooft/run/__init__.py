"""A run's folder, complete or absent, and what an interrupted run resumes from."""
