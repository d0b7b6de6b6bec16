"""TensorRT: engines that were built ahead of time, on an NVIDIA GPU."""
