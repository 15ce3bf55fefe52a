# A gentle recipe for fine-tuning with load_from, for any config here or in mmdet with a PaCa
# backbone. List this file beside it and add the last line:
#
#   _base_ = ['mmpaca::mask_rcnn_paca.py', 'mmpaca::_base_/schedules/finetune.py']
#   optim_wrapper, param_scheduler = _base_.finetune
#
# The optimizer, its learning rate and the length of the run stay those of the other file.
# --auto-scale-lr adapts the learning rate to the batch size.
finetune = [
    # Lower learning rates for lower layers of the backbone.
    dict(
        constructor='LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(layer_decay_rate=0.8),
    ),
    # Warm-up over 10 % of the run, at most 500 iterations, and cosine decay until its end.
    [
        dict(type='mmpaca.LinearWarmupLR', start_factor=0.01, by_epoch=False, num_iters=500),
        dict(type='CosineAnnealingLR', by_epoch=False, eta_min_ratio=0.01),
    ],
]
