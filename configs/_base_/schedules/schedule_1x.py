_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

# 8 GPUs x 2 images; the authors train with mixed precision, which is mmdet's flag --amp.
optim_wrapper = dict(
    constructor='MergedOptimWrapperConstructor',  # few groups: fewer launches
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)

# 1000 iterations of warm-up on COCO; at most 10 % of a shorter run.
param_scheduler = [
    dict(type='mmpaca.LinearWarmupLR', start_factor=0.001, by_epoch=False, num_iters=1000),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
