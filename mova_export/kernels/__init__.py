"""Kernels in a bundle: compiled for GPUs that need not be here, beside the adapter's weights packed for them.

A bundle and Triton are enough; neither torch nor a GPU is needed.
"""
