"""From a MoVA checkpoint to a bundle: loads, exports to ONNX, checks against torch, writes."""
