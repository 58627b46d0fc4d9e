"""A model at work on a device."""
