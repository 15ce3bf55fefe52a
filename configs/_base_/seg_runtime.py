# mmseg keeps default_hooks in its schedules. A config that inherits this file and a schedule ends
# with the line default_hooks = _base_.mmpaca_default_hooks.
_base_ = ['mmseg::_base_/default_runtime.py', './mmpaca.py']
