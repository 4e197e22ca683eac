"""What people look at: a run as one page, and runs side by side."""
