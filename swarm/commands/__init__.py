"""What each command of the `swarm` CLI does."""
