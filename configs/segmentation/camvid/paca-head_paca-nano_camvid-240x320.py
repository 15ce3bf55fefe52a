# A small PaCa-ViT and the PaCa head on CamVid from random weights, for two CPU cores. The configs
# beside it are its peers, see tools/analysis/compare_camvid.py.
_base_ = ['../../_base_/models/paca-head_paca.py', '../../_base_/camvid.py']

model = dict(
    data_preprocessor=_base_.camvid_data_preprocessor,
    backbone=dict(arch='nano', num_clusters=None, drop_path_rate=0.0),
    decode_head=dict(
        in_channels=[32, 64, 96, 128],
        channels=64,
        loss_decode=_base_.loss,
        loss_cluster=_base_.loss,
        **_base_.camvid_head,
    ),
)
