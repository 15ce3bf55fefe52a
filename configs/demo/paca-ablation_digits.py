# What tools/analysis/ablation.py varies: three blocks where there are clusters, so that sharing an
# assignment by stage, by every second block and not at all are different models.
_base_ = './paca-demo_digits.py'

max_epochs = 6
model = dict(backbone=dict(arch=dict(depths=(3, 3, 1, 1))))
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=max_epochs,
        eta_min=1e-5,
        convert_to_iter_based=True,
    ),
]
