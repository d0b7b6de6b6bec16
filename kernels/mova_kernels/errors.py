"""What a caller of the kernels can get wrong."""


class KernelError(ValueError):
    """An argument's dtype, shape, strides or device don't suit; the message names it, what it is, what is needed."""
