"""Values that users, scripts and files gave, as they stand in a message."""

from __future__ import annotations

__all__ = ["shown"]


def shown(value: object) -> str:
    """A value of any kind and origin in at most 100 printable ASCII characters."""
    if isinstance(value, dict | list | tuple):
        # A few bytes of YAML can stand for a structure that takes forever to write out.
        flat = not isinstance(value, dict) and len(value) <= 8
        if not flat or any(isinstance(item, dict | list | tuple | set) for item in value):
            return f"a {type(value).__name__} of length {len(value)}"
    try:
        text = ascii(value)
    except ValueError:  # a number of thousands of digits
        return f"a very large {type(value).__name__}"
    text = text[1:-1] if isinstance(value, str) else text
    return text if len(text) <= 100 else text[:97] + "..."
