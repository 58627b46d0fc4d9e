"""Other people's programs: where they are, and what they are told."""
