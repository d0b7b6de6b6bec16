"""Engines: a component loaded by a backend, ready to run."""
