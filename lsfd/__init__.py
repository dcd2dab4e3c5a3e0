"""lsfd: distil a large super-resolution network into a small fast one.

Importing this package imports nothing heavy; the rooms below it (``lsfd.networks``,
``lsfd.distillers``, ``lsfd.training`` ...) import what they need.
"""

__version__ = "0.1.0"
