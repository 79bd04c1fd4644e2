"""Consensus as a sans-IO state machine: no trio, no clock, no file, no logger; randomness is an argument."""
