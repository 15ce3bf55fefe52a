_base_ = './paca-head_paca-s_8xb2-160k_ade20k-512x512.py'

# There are no published ImageNet weights with clusters in stage 4. This config loads those with
# self-attention in stage 4; its clustering is re-initialised, with a warning.
model = dict(backbone=dict(num_clusters=200))
