"""What the verbs do to the store and to Ray."""
