"""Where time, randomness, disks and networks enter; everything else receives them."""
