# At output stride 16, which DeepLabV3+ was published with: mmseg's stride 8 takes four times as long.
_base_ = ['mmseg::_base_/models/deeplabv3plus_r50-d8.py', '../../_base_/camvid.py']

model = dict(
    data_preprocessor=_base_.camvid_data_preprocessor,
    pretrained=None,
    backbone=dict(depth=18, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), norm_cfg=dict(type='BN')),
    decode_head=dict(
        in_channels=512,
        channels=128,
        dilations=(1, 6, 12, 18),
        c1_in_channels=64,
        c1_channels=12,
        loss_decode=dict(_delete_=True, **_base_.loss),
        **_base_.camvid_head,
    ),
    auxiliary_head=dict(
        in_channels=256,
        channels=64,
        loss_decode=dict(_delete_=True, loss_weight=0.4, **_base_.loss),
        **_base_.camvid_head,
    ),
)
