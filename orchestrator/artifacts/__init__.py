"""What jobs leave behind, whole or absent."""
