# What every config of ours adds to mmdet's or mmpretrain's runtime. A config that inherits a whole
# config of mmdet's, and with it that runtime, takes this beside it and sets the last lines of
# default_runtime.py itself.

# Registers PaCaViT and, where mmcv has no compiled operators, torchvision's.
custom_imports = dict(imports=['mmpaca'], allow_failed_imports=False)

# For classifiers.
mmpaca_cls_hooks = [
    # A checkpoint that does not fit is an error; strict=False to load what fits.
    dict(type='mmpaca.StrictLoadHook', strict=True),
    # A resumed run is the same run.
    dict(type='mmpaca.ExactResumeHook'),
    # Steps with NaN or infinite gradients are left out; more than so many in a row stop the run.
    dict(type='mmpaca.CheckInvalidGradHook', max_skips=5),
]
# For detectors.
mmpaca_hooks = [
    *mmpaca_cls_hooks,
    # Necks and backbones, evaluators and data loaders that do not agree are an error before the run.
    dict(type='mmpaca.ConfigCheckHook'),
    # Heads for another number of classes than the data has are one, too.
    dict(type='mmdet.NumClassCheckHook'),
    dict(type='mmpaca.BadDataSummaryHook'),
    # Does nothing unless an evaluator has a ClusterAlignmentMetric.
    dict(type='mmpaca.ClusterRecordHook'),
]
