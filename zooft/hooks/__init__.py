"""What plugins register and listen to, and how they are found and held to their word."""
