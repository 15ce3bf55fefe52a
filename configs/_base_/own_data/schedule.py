# Minutes of training from random weights: AdamW with a high learning rate and clipped gradients, a
# short warm-up, cosine decay to the end of the run. It follows train_cfg.max_iters by itself.
_base_ = '../default_runtime.py'

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='MergedOptimWrapperConstructor',  # few groups: fewer launches
    optimizer=dict(type='AdamW', lr=1.5e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    # At most 10 % of the run.
    dict(type='mmpaca.LinearWarmupLR', start_factor=0.01, by_epoch=False, num_iters=100),
    dict(type='CosineAnnealingLR', by_epoch=False, eta_min_ratio=0.01),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1000, val_interval=500)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    # Broken images and annotations are skipped and logged, up to max_bad_share of the images.
    dataset=dict(type='mmpaca.TolerantCocoDataset', max_bad_share=0.05),
)
val_dataloader = dict(
    batch_size=1,  # no padding: images may have any size
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='mmpaca.TolerantCocoDataset', test_mode=True),
)
test_dataloader = val_dataloader
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(by_epoch=False, interval=500, max_keep_ckpts=1),
    visualization=dict(score_thr=0.5),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
