"""Job files: what a user asks for."""
