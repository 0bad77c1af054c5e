"""One attempt of an evaluation: features by shards, and what they say."""
