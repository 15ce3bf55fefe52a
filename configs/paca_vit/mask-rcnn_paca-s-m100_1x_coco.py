_base_ = './mask-rcnn_paca-s_1x_coco.py'

# The authors published no ImageNet weights with 100 clusters in stage 4, so this starts from those
# with self-attention there: the clustering of stage 4 is initialised anew, with a warning.
model = dict(backbone=dict(num_clusters=(100, 100, 100, 100)))
