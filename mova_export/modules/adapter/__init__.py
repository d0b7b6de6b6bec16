"""The MoV-Adapter: fuses the selected experts' features into the base encoder's (arXiv 2404.13046, section 3.3)."""
