"""The actor kernel: messages, mailboxes, actors, refs, scopes. Knows nothing of clusters."""
