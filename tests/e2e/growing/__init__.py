"""A Django app that is all migration: it wants a table of the shop's, for itself alone."""
