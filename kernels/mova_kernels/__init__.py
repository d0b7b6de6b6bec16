"""The MoV-Adapter's fused operations as Triton kernels, with their torch references and cubins made ahead of time.

A folder an operation: `cross_attention` of all (image, expert) pairs at once, `gate`, `combine`, what works on `rows`,
and the `downsample` stages. In each, `reference` is the specification in torch, of which `mova_export` builds its
adapter; `kernel` is Triton alone; `op` is for torch users: importing `mova_kernels.operators` registers them all as
`torch.ops.mova.*`. `aot` compiles kernels for GPUs that are not here, without torch.
"""
