"""Stand-ins for outside systems: small servers with a memory, which hold requests against the vendors' descriptions."""
