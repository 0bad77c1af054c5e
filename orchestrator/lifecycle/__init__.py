"""What a job may become and what follows. Pure: no clock, no network, no store."""
