"""Version of the package, the same as mmpaca's."""

__version__ = '0.2.0'
