"""The kernels as ahead-of-time plugins of TensorRT: an adapter engine can hold them."""
