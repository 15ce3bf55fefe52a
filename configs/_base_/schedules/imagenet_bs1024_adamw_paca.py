# 300 epochs of AdamW; the authors train with mixed precision, which is mmpretrain's flag --amp.
_base_ = 'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py'

lr = 5e-4 * 1024 / 512  # 8 GPUs x 128 images; for other batch sizes use --auto-scale-lr
optim_wrapper = dict(
    constructor='MergedOptimWrapperConstructor',  # few groups: fewer launches
    optimizer=dict(lr=lr),
    paramwise_cfg=dict(custom_keys=dict(_delete_=True)),  # Swin's position embeddings
)

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=5e-7 / lr,
        by_epoch=True,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(type='CosineAnnealingLR', eta_min=5e-6, by_epoch=True, begin=5, end=300),
]
auto_scale_lr = dict(base_batch_size=1024)
