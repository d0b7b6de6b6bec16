"""Which experts suit an image and a question."""
