"""What happens to rows of channels between matrix products: norms, SwiGLU, biases, conversions."""
