"""torchvision's and PyTorch's kernels behind the names that mmcv compiles.

:mod:`mmpaca.plugin.operators` puts them in the place of ``mmcv._ext``. This package imports nothing
else of mmpaca.
"""

#: Operator -> the submodule of this package that has it.
SERVED = {
    'carafe_backward': 'carafe',
    'carafe_forward': 'carafe',
    'carafe_naive_backward': 'carafe',
    'carafe_naive_forward': 'carafe',
    'deform_conv_backward_input': 'deform_conv',
    'deform_conv_backward_parameters': 'deform_conv',
    'deform_conv_forward': 'deform_conv',
    'get_compiler_version': 'info',
    'get_compiling_cuda_version': 'info',
    'masked_col2im_forward': 'masked_conv',
    'masked_im2col_forward': 'masked_conv',
    'modulated_deform_conv_backward': 'modulated_deform_conv',
    'modulated_deform_conv_forward': 'modulated_deform_conv',
    'ms_deform_attn_backward': 'ms_deform_attn',
    'ms_deform_attn_forward': 'ms_deform_attn',
    'nms': 'nms',
    'nms_match': 'nms',
    'roi_align_backward': 'roi_align',
    'roi_align_forward': 'roi_align',
    'roi_pool_backward': 'roi_pool',
    'roi_pool_forward': 'roi_pool',
    'sigmoid_focal_loss_backward': 'focal_loss',
    'sigmoid_focal_loss_forward': 'focal_loss',
    'softnms': 'nms',
}

__all__ = ['SERVED']
