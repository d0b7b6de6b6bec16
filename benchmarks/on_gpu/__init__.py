"""What `benchmarks/gpu.py` does on an NVIDIA GPU, a section a file."""
