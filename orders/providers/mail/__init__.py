"""Who sends mail: one file a way."""
