_base_ = './paca-t_cifar100_32.py'

model = dict(backbone=dict(arch='small'))
