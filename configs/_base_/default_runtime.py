_base_ = ['mmdet::_base_/default_runtime.py', './mmpaca.py']

# Checkpoints appear whole or not at all, and --resume finds the newest whole one.
default_hooks = dict(checkpoint=dict(type='mmpaca.AtomicCheckpointHook'))
custom_hooks = _base_.mmpaca_hooks
