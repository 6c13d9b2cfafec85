"""A Django app with one toy saga, for real worker processes."""
