"""Checkpoints, whole or absent."""
