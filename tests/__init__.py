"""Tests. Start them with `make test`, or `.venv/bin/pytest` for a quick look on SQLite."""
