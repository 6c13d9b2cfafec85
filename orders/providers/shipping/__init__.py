"""Who moves parcels: one file a carrier."""
