"""Ray, and the machines below it."""
