"""TensorRT engines: which a bundle needs for which GPU, how one is built, and how it gets into the bundle.

Nothing here needs torch: a bundle and TensorRT are enough.
"""
