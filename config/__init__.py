"""How the site is put together. Nobody imports this package: Django does, by name."""
