"""Evaluation runs: the questions of a file, answered into a file that published scoring scripts read.

An answers file grows by whole lines, so that a run may end at any moment and go on later. Nothing here needs torch.
"""
