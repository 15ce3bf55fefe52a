_base_ = ['mmpretrain::_base_/default_runtime.py', './mmpaca.py']

default_hooks = _base_.mmpaca_default_hooks
