"""What a task found: samples, their labels, and which of them are held out."""
