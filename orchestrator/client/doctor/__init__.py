"""Probes of the surroundings, each with its remedy."""
