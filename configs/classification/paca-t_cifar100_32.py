_base_ = [
    '../_base_/models/paca_cls.py',
    '../_base_/datasets/cifar100_bs128_32.py',
    '../_base_/schedules/cifar100_bs128_adamw.py',
    '../_base_/cls_runtime.py',
]

# Stem stride 1 and the usual halving between stages: maps of 32, 16, 8 and 4, so that every
# stage still has a neighbourhood to look at (at 224 they are 56 to 7). With stride 2 the last
# stage would have 2x2 patches, with 4 a single one. Clusters where they are far fewer than
# patches (1024 and 256); stages 3 and 4 have 64 and 16 and attend to them directly.
model = dict(
    backbone=dict(arch='tiny', stem_stride=1, num_clusters=(100, 100, 0, 0)),
    head=dict(num_classes=100),
)
