"""The model of the paper (Zhang & Chen, CVPR 2025)."""
