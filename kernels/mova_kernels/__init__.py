"""What the MoV-Adapter's fused kernels compute, as torch references: rotary cross-attention, gate, combine.

The references are the specification. `mova_export` builds its adapter from them, and a kernel is right when it
agrees with them.
"""
