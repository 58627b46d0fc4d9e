"""Training: footage, losses, the loop, its configurations and its report."""
