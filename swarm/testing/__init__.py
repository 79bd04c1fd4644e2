"""The public test kit: a whole cluster in one process under a seed, in virtual time, with faults."""
