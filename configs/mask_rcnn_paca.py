_base_ = './paca_vit/mask-rcnn_paca-s_1x_coco.py'
