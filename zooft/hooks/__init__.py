"""What plugins register and listen to, how they are found, and how they are checked."""
