_base_ = ['mmseg::_base_/models/segformer_mit-b0.py', '../../_base_/camvid.py']

model = dict(
    data_preprocessor=_base_.camvid_data_preprocessor,
    decode_head=_base_.camvid_head,
)
