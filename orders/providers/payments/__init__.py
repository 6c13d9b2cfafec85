"""Who takes money: one file a gateway."""
