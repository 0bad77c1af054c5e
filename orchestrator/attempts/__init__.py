"""What every process of an attempt does: identity, heartbeat, log, outcome."""
