_base_ = [
    '../_base_/models/paca_cls.py',
    '../_base_/datasets/cifar100_bs128_32.py',
    '../_base_/schedules/cifar100_bs128_adamw.py',
    '../_base_/cls_runtime.py',
]

# Stem stride 1 gives 32x32, 16x16, 8x8 and 4x4 patches (56x56 to 7x7 at 224). With stride 2 the
# last stage would have 2x2 patches, with stride 4 only one. Stages 1 and 2 have far more patches
# (1024 and 256) than clusters; stages 3 and 4 (64 and 16) use plain self-attention.
model = dict(
    backbone=dict(arch='tiny', stem_stride=1, num_clusters=(100, 100, 0, 0)),
    head=dict(num_classes=100),
)
