"""The training loop and what it carries: gradients, optimizer, average, data, checkpoints."""
