"""The scheduler: which node each pending task goes to, and why none will take it."""
