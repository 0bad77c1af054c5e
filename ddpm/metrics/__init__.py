"""How good images are: distances between two sets of features, in float64 and by blocks."""
