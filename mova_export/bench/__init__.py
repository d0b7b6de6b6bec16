"""What a bundle costs on this machine: every component on every backend, every route, beside torch where asked for.

Nothing here imports torch or onnx but `torch_modules`, which runs in a process of its own: a device has neither.
"""
