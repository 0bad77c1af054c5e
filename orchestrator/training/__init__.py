"""One attempt of a training."""
