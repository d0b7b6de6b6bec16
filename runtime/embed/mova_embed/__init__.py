"""MoVA's runtime as a C library: `mova embed build` compiles libmova for the Python that runs it.

Two halves. What builds reads in the order of `build.py`; what runs inside the library begins in `boundary.py`. The C
side is in `c/`: `types.h` and `functions.h` are the interface, and mova.h is made from them.
"""

ABI = 1
"""Counts up when a program compiled against an older mova.h could not use the library any more."""
