"""A tiny checkpoint in the published layout, with random weights: it shows the whole path and knows nothing."""
