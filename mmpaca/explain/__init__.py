"""See what a model sees: its clusters recorded, as pictures, as a page."""

from .recorder import BlockRecord, Recording, record

__all__ = ['BlockRecord', 'Recording', 'record']
