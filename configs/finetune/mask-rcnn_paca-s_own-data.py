# Mask R-CNN with PaCa-S, trained on COCO, fine-tuned on a dataset in COCO's format: copy this file
# and change classes and paths. Outside of this repository begin with
# _base_ = ['mmpaca::mask_rcnn_paca.py', 'mmpaca::_base_/schedules/finetune.py'].
_base_ = ['../mask_rcnn_paca.py', '../_base_/schedules/finetune.py']
optim_wrapper, param_scheduler = _base_.finetune

classes = ('cat', 'dog', 'bird', 'fish')
data_root = 'data/own/'  # train/, val/, annotations/train.json, annotations/val.json
load_from = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/mask_rcnn_pacavit_small_p2cconv_100_0_mstrain_480_800_1x_coco.pth'

_head = dict(num_classes=len(classes))
model = dict(
    backbone=dict(init_cfg=None),  # load_from has its weights
    roi_head=dict(bbox_head=_head, mask_head=_head),
)
_data = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(
    dataset=dict(ann_file='annotations/train.json', data_prefix=dict(img='train/'), **_data)
)
val_dataloader = dict(
    dataset=dict(ann_file='annotations/val.json', data_prefix=dict(img='val/'), **_data)
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator
