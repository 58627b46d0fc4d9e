"""What core.cvrs calls: arguments checked once, groups of frames made and judged."""
