"""Metrics on their way to MLflow, each once."""
