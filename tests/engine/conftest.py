import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from toy import TINY


@pytest.fixture
def runner(tmp_path, root, shapes):
    """Return a function: config options -> Runner as mmdet's tools build it, on 8 small images."""
    serial = iter(range(100))

    def build(config: str = 'mask-rcnn_paca-demo_shapes_clusters.py', **options) -> Runner:
        cfg = Config.fromfile(root / 'configs/demo' / config)
        cfg.merge_from_dict(options)
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.dataset.data_root = str(shapes)
            loader.update(num_workers=0, persistent_workers=False)
        for evaluator in (cfg.val_evaluator, *cfg.test_evaluator):
            evaluator.ann_file = str(shapes / 'annotations/val.json')
        cfg.val_evaluator.metric = 'bbox'
        cfg.work_dir = str(tmp_path)
        cfg.experiment_name = f'{tmp_path.name}_{next(serial)}'
        cfg.visualizer.name = cfg.experiment_name  # visualizers of one name are one
        cfg.model.backbone.arch = TINY
        cfg.model.neck.in_channels = [8] * 4
        return Runner.from_cfg(cfg)

    return build
