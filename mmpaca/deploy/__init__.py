"""A trained model as one graph of tensors, and that graph as an ONNX file.

The graphs call the sub-modules of mmdet's, mmpretrain's and mmseg's models and compute what their
``predict`` computes, without objects, lists per image and branches on values.
:func:`mmpaca.apis.deploy.export` uses them.
"""

from .graph import build_graph

__all__ = ['build_graph']
