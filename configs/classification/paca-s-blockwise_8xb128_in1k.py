_base_ = './paca-s-m100_8xb128_in1k.py'

model = dict(backbone=dict(cluster_interval=1))
