# 50 epochs on one GPU x 128 images from trained weights, at ImageNet's learning rate per image.
_base_ = './imagenet_bs1024_adamw_paca.py'

max_epochs = 50
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=5e-4 * 128 / 512))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=5, end=max_epochs),
]
auto_scale_lr = dict(base_batch_size=128)
