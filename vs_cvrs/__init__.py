"""Continuous space-time video resampling with hidden motion, for VapourSynth.

The filters are ``core.cvrs.Downsample`` and ``core.cvrs.Upsample``; VapourSynth finds them by
itself once this package is installed. The modules here are what stands behind them.
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("vs-cvrs")
