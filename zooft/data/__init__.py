"""What a task found: samples, their labels, and who is held out."""
