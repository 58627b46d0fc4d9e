"""Low-rate frames between the two ends: what they carry, and what keeps it."""
