_base_ = 'mmdet::_base_/default_runtime.py'

# Registers PaCaViT and, where mmcv has no compiled operators, torchvision's.
custom_imports = dict(imports=['mmpaca'], allow_failed_imports=False)

# Checkpoints appear whole or not at all, and --resume finds the newest whole one.
default_hooks = dict(checkpoint=dict(type='mmpaca.CheckpointHook'))

custom_hooks = [
    # A checkpoint that does not fit is an error; strict=False to load what fits.
    dict(type='mmpaca.StrictLoadHook', strict=True),
    # A resumed run is the same run.
    dict(type='mmpaca.ResumeHook'),
    # Steps with NaN or infinite gradients are left out; more than so many in a row stop the run.
    dict(type='mmpaca.FiniteHook', max_skips=5),
    dict(type='mmpaca.NeckHook'),
    dict(type='mmpaca.BadDataHook'),
    # Does nothing unless an evaluator has a ClusterAlignmentMetric.
    dict(type='mmpaca.ClusterRecordHook'),
]
