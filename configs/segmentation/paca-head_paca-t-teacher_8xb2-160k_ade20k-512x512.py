_base_ = './paca-head_paca-s-teacher_8xb2-160k_ade20k-512x512.py'

# No weights of it were published.
model = dict(backbone=dict(arch='tiny_teacher', init_cfg=None))
