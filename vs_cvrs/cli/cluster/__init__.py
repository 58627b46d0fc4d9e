"""Segments made by other processes and machines, by Dask.distributed."""
