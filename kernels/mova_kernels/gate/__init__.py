"""The gate: how much each selected expert counts for an image and its question."""
