# The paper's segmentor: PaCa-ViT and a head whose clusters are the classes.
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
    ),
    backbone=dict(
        type='PaCaViT', arch='small', num_clusters=(200, 200, 200, 0), drop_path_rate=0.1
    ),
    decode_head=dict(
        type='PaCaSegHead',
        in_channels=[96, 192, 320, 384],
        num_classes=150,
        channels=256,
        dropout_ratio=0.1,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
