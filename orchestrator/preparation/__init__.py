"""One attempt of a preparation: a source read, decoded and written by a fleet."""
