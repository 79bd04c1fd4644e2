"""The nouns of the cluster and the store that holds them: frozen data, pure functions, no I/O."""
