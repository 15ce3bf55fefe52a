# What tools/analysis/ablation.py varies: three blocks where there are clusters, so that sharing an
# assignment by stage, by every second block and not at all are different models.
_base_ = './paca-demo_digits.py'

max_epochs = 6
model = dict(backbone=dict(arch=dict(depths=(3, 3, 1, 1))))
train_cfg = dict(max_epochs=max_epochs)
_warmup, _cosine = _base_.param_scheduler
param_scheduler = [_warmup, dict(_cosine, end=max_epochs)]
