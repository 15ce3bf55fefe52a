# 300 epochs as on ImageNet, on one GPU x 128 images. The learning rate is a usual one for
# CIFAR from scratch, larger than the linear rule gives.
_base_ = './imagenet_bs1024_adamw_paca.py'

optim_wrapper = dict(optimizer=dict(lr=5e-4))
auto_scale_lr = dict(base_batch_size=128)
