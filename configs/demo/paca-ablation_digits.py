# Base config of tools/analysis/ablation.py. With three blocks in the stages with clusters, sharing
# an assignment within a stage, by two blocks, or not at all gives different models.
_base_ = './paca-demo_digits.py'

max_epochs = 6
model = dict(backbone=dict(arch=dict(depths=(3, 3, 1, 1))))
train_cfg = dict(max_epochs=max_epochs)
_warmup, _cosine = _base_.param_scheduler
param_scheduler = [_warmup, dict(_cosine, end=max_epochs)]
