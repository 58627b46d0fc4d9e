"""Models cheap enough for CPUs."""
