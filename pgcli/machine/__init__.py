"""What the computer gives: cores, randomness, signals."""
