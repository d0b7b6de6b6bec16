"""What happens between the matrix products of the adapter's end: average, RegNet stages, pooling."""
