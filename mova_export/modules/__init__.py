"""MoVA's parts as torch modules, their parameters under the published names."""
