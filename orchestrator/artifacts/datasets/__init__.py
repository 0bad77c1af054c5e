"""Data sets, pinned by hash."""
