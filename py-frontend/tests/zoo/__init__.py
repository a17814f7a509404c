"""Small models of many kinds, with random weights, on the device against the CPU."""
