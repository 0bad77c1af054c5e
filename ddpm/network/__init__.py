"""The network that predicts noise, and its layers."""
