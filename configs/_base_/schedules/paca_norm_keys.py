# norm_decay_mult does not apply to parameters that match a custom key. So if 'backbone' is one,
# PaCa's LayerNorms need keys of their own: the backbone's learning rate, no weight decay.
_norm = dict(lr_mult=0.1, decay_mult=0.0)
paca_norm_keys = {
    'backbone.stem.norm': _norm,
    **{f'backbone.stages.{i}.norm': _norm for i in range(4)},
    **{f'backbone.stages.{i}.downsample.norm': _norm for i in range(1, 4)},
    **{
        f'backbone.stages.{i}.blocks.{j}.{norm}': _norm
        for i in range(4)
        for j in range(18)
        for norm in ('norm', 'attn.cluster_norm')
    },
}
