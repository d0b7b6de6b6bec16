"""The adapter made of our own kernels and cuBLAS, on an NVIDIA GPU, without Triton and torch.

A run goes: `inputs` checks and copies in; `forward` queues the pass, block by block (`blocks`) and then the end
(`project`), over what `layout` says lies where; `engine` hands the outputs out. What `forward` queues on is a
`work.Work`: `kernels` launches compiled kernels, `products` multiplies matrices.
"""
