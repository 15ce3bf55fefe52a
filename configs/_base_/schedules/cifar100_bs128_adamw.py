# 300 epochs as on ImageNet, 1 GPU x 128 images. The learning rate is common for CIFAR from scratch
# and larger than linear scaling gives.
_base_ = './imagenet_bs1024_adamw_paca.py'

optim_wrapper = dict(optimizer=dict(lr=5e-4))
auto_scale_lr = dict(base_batch_size=128)
