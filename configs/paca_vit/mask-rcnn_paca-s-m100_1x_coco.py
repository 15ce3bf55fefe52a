_base_ = './mask-rcnn_paca-s_1x_coco.py'

# There are no published ImageNet weights with 100 clusters in stage 4. This config loads those with
# self-attention in stage 4; its clustering is re-initialised, with a warning.
model = dict(backbone=dict(num_clusters=(100, 100, 100, 100)))
