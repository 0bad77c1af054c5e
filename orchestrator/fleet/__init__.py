"""A fleet of workers that compute the shards of a plan, whatever a shard holds."""
