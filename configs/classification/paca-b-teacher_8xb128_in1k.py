_base_ = './paca-b_8xb128_in1k.py'

model = dict(backbone=dict(arch='base_teacher', drop_path_rate=0.1))
