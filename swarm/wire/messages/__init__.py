"""The messages that may leave a node, one file a subject; each names the actor that gets it and the roles that may send it."""
