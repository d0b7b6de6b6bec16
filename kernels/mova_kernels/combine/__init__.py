"""The sum of the experts' contributions into the image's tokens."""
