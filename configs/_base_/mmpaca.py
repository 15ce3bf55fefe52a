# What all configs here add to mmdet's or mmpretrain's runtime. A config that inherits an entire
# config of mmdet, runtime included, lists this file beside it and repeats the last line of
# default_runtime.py.

# Registers PaCaViT and, if mmcv has no compiled operators, torchvision's.
custom_imports = dict(imports=['mmpaca'], allow_failed_imports=False)

# For default_hooks, which mmengine merges: default_hooks=dict(strict_load=dict(strict=False))
# changes one and default_hooks=dict(strict_load=dict(enabled=False)) switches one off (None is an
# error for keys that mmengine does not have). custom_hooks is free for your own hooks.
mmpaca_default_hooks = dict(
    # Crash-safe checkpoints; --resume finds the newest valid one.
    checkpoint=dict(type='mmpaca.AtomicCheckpointHook'),
    # A checkpoint that does not match the model is an error. When fine-tuning with load_from,
    # layers that depend on the number of classes are re-initialised. strict=False loads what
    # matches.
    strict_load=dict(type='mmpaca.StrictLoadHook', strict=True),
    # A resumed run continues exactly where it stopped.
    exact_resume=dict(type='mmpaca.ExactResumeHook'),
    # Skips optimizer steps with NaN or infinite gradients; stops after more than max_skips.
    invalid_grad=dict(type='mmpaca.CheckInvalidGradHook', max_skips=5),
    # Checks before a run that neck, heads, dataset, evaluator and schedule match.
    config_check=dict(type='mmpaca.ConfigCheckHook'),
    # Refuses label maps whose labels are no class of the segmentor.
    seg_labels=dict(type='mmpaca.SegLabelCheckHook'),
    # Summarises broken images and annotations after training.
    bad_data=dict(type='mmpaca.BadDataSummaryHook'),
    # Records clusters if an evaluator has a ClusterAlignmentMetric.
    cluster_record=dict(type='mmpaca.ClusterRecordHook'),
)

# Lists for custom_hooks in 0.1. Empty since the hooks are default_hooks; removed in 0.3.
mmpaca_hooks = []
mmpaca_cls_hooks = []
