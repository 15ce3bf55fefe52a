_base_ = 'mmdet::_base_/default_runtime.py'

# Registers PaCaViT and, where mmcv has no compiled operators, torchvision's.
custom_imports = dict(imports=['mmpaca'], allow_failed_imports=False)

# A checkpoint that does not fit is an error; strict=False to load what fits.
# The second does nothing unless an evaluator has a ClusterAlignmentMetric.
custom_hooks = [
    dict(type='mmpaca.StrictLoadHook', strict=True),
    dict(type='mmpaca.ClusterRecordHook'),
]
