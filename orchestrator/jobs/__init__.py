"""A job in the store: its record, events, inbox, index and logs."""
