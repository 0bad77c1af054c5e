"""Sample sets: exactly N images, proven."""
