"""Arrays in a GPU's memory, and the backends' access to it; imported when the first engine is loaded onto a GPU."""
