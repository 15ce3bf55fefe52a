"""A small dataset in CamVid's layout, and configs shrunk to it."""

from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / 'configs/segmentation/camvid/paca-head_paca-nano_camvid-240x320.py'
HEIGHT, WIDTH = 48, 64
DIMS = (8, 8, 16, 16)


def write_camvid(folder: Path) -> Path:
    """Six images to train on and three to validate; classes 0 to 10 in blocks, and 11, void."""
    rng = np.random.RandomState(0)
    for part, count in (('train', 6), ('val', 3)):
        for kind in ('images', 'labels'):
            (folder / kind / part).mkdir(parents=True)
        for i in range(count):
            labels = rng.randint(0, 12, (6, 8), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            image = 20 * labels[..., None] + rng.randint(0, 20, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / f'images/{part}/{i}.jpg')
            Image.fromarray(labels).save(folder / f'labels/{part}/{i}.png')
    return folder


def shrink(model) -> None:
    """Make a segmentor small: its kind of clusters, teacher and heads stays."""
    backbone = model.backbone
    if backbone.type == 'PaCaViT':
        ones = (1, 1, 1, 1)
        teacher = isinstance(backbone.arch, str) and 'teacher' in backbone.arch
        backbone.arch = dict(
            embed_dims=DIMS,
            num_heads=ones,
            mlp_ratios=ones,
            depths=(2, 1, 1, 1),
            teacher_depths=ones if teacher else None,
        )
        given = backbone.num_clusters or (49, 49, 49, 0)
        backbone.num_clusters = tuple(5 if m else 0 for m in np.broadcast_to(given, 4))
        backbone.init_cfg = None
        model.decode_head.in_channels = list(DIMS)
    model.decode_head.channels = 16
    if 'auxiliary_head' in model:
        model.auxiliary_head.channels = 16
        if backbone.type == 'PaCaViT':
            model.auxiliary_head.in_channels = DIMS[2]


def tiny_config(data_root: Path, work_dir: Path, **options) -> Config:
    """The PaCa head's CamVid config, for two iterations on the small dataset."""
    cfg = Config.fromfile(CONFIG)
    shrink(cfg.model)
    cfg.model.data_preprocessor.size = (32, 32)
    cfg.train_dataloader.dataset.pipeline[2].scale = (WIDTH, HEIGHT)
    cfg.train_dataloader.dataset.pipeline[3].crop_size = (32, 32)
    for part in ('train', 'val', 'test'):
        loader = cfg[f'{part}_dataloader']
        loader.dataset.data_root = str(data_root)
        loader.update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=9)
    cfg.default_hooks.logger.interval = 1
    cfg.log_level = 'WARNING'
    cfg.work_dir = str(work_dir)
    cfg.merge_from_dict(options)
    return cfg
