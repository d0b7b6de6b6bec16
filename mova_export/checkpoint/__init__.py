"""A published MoVA checkpoint on disk: its configuration, its tensors, and which part of the model each belongs to."""
