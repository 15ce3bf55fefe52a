_base_ = './paca-s_8xb128_in1k.py'

model = dict(backbone=dict(num_clusters=(100, 100, 100, 100)))
