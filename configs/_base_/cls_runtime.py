_base_ = 'mmpretrain::_base_/default_runtime.py'

# Registers PaCaViT and mmpaca's checkpoint loaders.
custom_imports = dict(imports=['mmpaca'], allow_failed_imports=False)

# A checkpoint that does not fit is an error; strict=False to load what fits.
custom_hooks = [dict(type='mmpaca.StrictLoadHook', strict=True)]
