"""The version of the package, read by its metadata, too."""

__version__ = '0.2.0'
