"""Who holds stock: one file a system."""
