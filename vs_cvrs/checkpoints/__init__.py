"""Models in files, which anybody may have made."""
