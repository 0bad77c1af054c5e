"""Who starts where, who makes room, why one waits. Pure: no clock, no network, no store."""
