"""Telling others what happens to orders: docs/webhooks.md."""
