"""Worker processes that die where they are told to, by SIGKILL, as a power cut would have it."""
