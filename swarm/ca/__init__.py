"""The cluster's own certificate authority, as pure functions over keys, certificates and tokens."""
