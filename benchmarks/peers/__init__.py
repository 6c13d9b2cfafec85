"""What people would use instead, each with an environment of its own: nothing here is imported by the project."""
