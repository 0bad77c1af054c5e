"""Objects under conditions, and where each one lies."""
