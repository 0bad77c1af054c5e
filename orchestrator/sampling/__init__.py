"""One attempt of a sample job."""
