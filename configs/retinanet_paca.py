_base_ = './paca_vit/retinanet_paca-s_1x_coco.py'
