_base_ = ['mmseg::_base_/models/segformer_mit-b0.py', '../../_base_/camvid.py']

model = dict(
    data_preprocessor=_base_.camvid_data_preprocessor,
    decode_head=dict(loss_decode=dict(_delete_=True, **_base_.loss), **_base_.camvid_head),
)
