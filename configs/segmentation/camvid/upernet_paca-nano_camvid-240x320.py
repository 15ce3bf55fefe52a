# The PaCa head's width.
_base_ = ['../../_base_/models/upernet_paca.py', '../../_base_/camvid.py']

model = dict(
    data_preprocessor=_base_.camvid_data_preprocessor,
    backbone=dict(arch='nano', num_clusters=None, drop_path_rate=0.0),
    decode_head=dict(
        in_channels=[32, 64, 96, 128],
        channels=64,
        loss_decode=dict(_delete_=True, **_base_.loss),
        **_base_.camvid_head,
    ),
    auxiliary_head=dict(
        in_channels=96,
        channels=64,
        loss_decode=dict(_delete_=True, loss_weight=0.4, **_base_.loss),
        **_base_.camvid_head,
    ),
)
