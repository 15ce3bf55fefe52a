# Of parameters that a custom key names, norm_decay_mult says nothing. So where 'backbone' is such a
# key, PaCa's LayerNorms are named one by one: its learning rate, without decay.
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
