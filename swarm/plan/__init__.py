"""The decisions: pure functions from a snapshot of the store to groups of changes. Never imports trio, never reads a clock."""
