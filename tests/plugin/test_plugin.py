"""``import mmpaca`` is enough, wherever the registry, the config or the tool comes from."""

import re
import shutil
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import mmdet
import pytest
from mmengine.config import Config

from mmpaca.compat import check_versions

FROM_REGISTRIES = """
import mmengine.runner  # the user's own import may come first
from mmengine.registry import MODELS
print(type(MODELS.build(dict(type='mmpaca.PaCaViT'))).__module__)  # the scope is enough
import mmpaca
from mmengine.runner.checkpoint import CheckpointLoader
assert CheckpointLoader._schemes[''].func.__module__ == 'mmpaca.checkpoint.loading'
from mmengine.registry import MODELS as root
from mmdet.registry import MODELS as mmdet
from mmpretrain.registry import MODELS as mmpretrain
for registry in (root, mmdet, mmpretrain):
    for name in ('PaCaViT', 'mmpaca.PaCaViT'):
        model = registry.build(dict(type=name, arch='tiny'))
        assert type(model) is mmpaca.models.PaCaViT, (registry.scope, name)
print('built')
"""

THROUGH_CUSTOM_IMPORTS = """
from mmengine.config import Config
from mmdet.registry import MODELS
cfg = Config.fromfile('mine.py')
print(sum(p.numel() for p in MODELS.build(cfg.model).backbone.parameters()))
"""

# A stranger's config, somewhere on disk: PaCaViT under another detector of mmdet's.
MINE = """
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmpaca'], allow_failed_imports=False)
model = dict(
    backbone=dict(_delete_=True, type='PaCaViT', arch='tiny'),
    neck=dict(in_channels=[96, 192, 320, 384]))
"""


def test_all_registries_build_it(python):
    printed = python(FROM_REGISTRIES)
    assert 'mmpaca.models.paca_vit' in printed and printed.strip().endswith('built')


def test_custom_imports_in_a_config(python, tmp_path):
    (tmp_path / 'mine.py').write_text(MINE)
    assert python(THROUGH_CUSTOM_IMPORTS).strip().endswith('11815680')


@pytest.mark.parametrize(
    'base', ['mmpaca::mask_rcnn_paca.py', 'mmpaca::paca_vit/mask-rcnn_paca-s_1x_coco.py']
)
def test_bases_from_anywhere(root, tmp_path, base):
    (tmp_path / 'mine.py').write_text(
        f"_base_ = '{base}'\nmodel = dict(backbone=dict(arch='tiny'))\n"
    )
    cfg = Config.fromfile(tmp_path / 'mine.py')
    assert cfg.model.backbone.arch == 'tiny'
    expected = Config.fromfile(root / 'configs/mask_rcnn_paca.py')
    expected.model.backbone.arch = 'tiny'
    assert cfg.to_dict() == expected.to_dict()


def test_a_wrong_base_lists_the_right_ones(tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = 'mmpaca::mask_rcnn.py'\n")
    with pytest.raises(
        FileNotFoundError, match='mmpaca::mask_rcnn.py does not exist.*mask_rcnn_paca.py'
    ):
        Config.fromfile(tmp_path / 'mine.py')


STOCK_TOOLS = """
import runpy, sys
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name='__main__')
import mmpaca
from mmdet.apis import DetInferencer
inferencer = DetInferencer(model='demo.py', weights='out/iter_2.pth', device='cpu', show_progress=False)
result = inferencer('image.png', no_save_vis=True)['predictions'][0]
print(sorted(result), len(result['bboxes']) == len(result['masks']))
"""


def test_stock_mmdet_from_another_folder(root, run, tmp_path, shapes):
    """mmdet's own tools/train.py and DetInferencer, with nothing of this checkout on the path
    but the package."""
    # A stock tool reads the bases before it imports mmpaca, so they are given by path.
    config = (root / 'configs/demo/mask-rcnn_paca-demo_shapes.py').read_text()
    config = config.replace("'../_base_/", f"'{root}/configs/_base_/")
    (tmp_path / 'demo.py').write_text(config)
    shutil.copytree(shapes, tmp_path / 'data/shapes')
    train = Path(mmdet.__file__).parent / '.mim/tools/train.py'
    options = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=2']
    shutil.copy(shapes / 'val/000001.png', tmp_path / 'image.png')
    (tmp_path / 'both.py').write_text(STOCK_TOOLS)
    command = (sys.executable, 'both.py', train, 'demo.py', '--work-dir', 'out')
    printed = run(*command, '--cfg-options', *options)
    assert 'coco/bbox_mAP' in printed
    assert "['bboxes', 'labels', 'masks', 'scores'] True" in printed


OLD_MMCV = """
import mmcv
mmcv.__version__ = '1.7.2'
try:
    import mmpaca
except ImportError as error:
    print('ERROR', error)
"""


def test_a_wrong_version_stops_the_import(python):
    printed = python(OLD_MMCV)
    assert 'ERROR mmpaca needs mmcv >=2.0.0,<2.4.0 and found 1.7.2; run: pip install' in printed


@pytest.mark.parametrize(
    ('package', 'version', 'sentence'),
    [
        ('mmcv', '2.4.0', 'mmcv >=2.0.0,<2.4.0 and found 2.4.0; run: pip install mmcv-lite==2.1.0'),
        (
            'mmengine',
            '0.9.0',
            'mmengine >=0.10.3,<1.0 and found 0.9.0; run: pip install mmengine==',
        ),
        ('mmdet', '2.28.2', 'mmdet >=3.3.0,<4.0 and found 2.28.2; run: pip install mmdet==3.3.0'),
        ('torch', '2.1.0+cu118', 'torch >=2.6 and found 2.1.0+cu118; run: pip install torch torch'),
    ],
)
def test_wrong_versions_get_one_sentence(monkeypatch, package, version, sentence):
    monkeypatch.setattr(f'{package}.__version__', version)
    with pytest.raises(ImportError, match=f'^{re.escape("mmpaca needs " + sentence)}'):
        check_versions()


def test_no_mmdet_gets_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmdet', None)  # as if it was not there
    with pytest.raises(ImportError, match='^mmpaca needs mmdet >=3.3.0,<4.0 and found none; run'):
        check_versions()


@pytest.mark.skipif(
    'onedl-mmdetection' in packages_distributions()['mmdet'], reason='the fork refuses none'
)
def test_a_version_that_mmdet_refuses_gets_one_sentence(monkeypatch):
    monkeypatch.delitem(sys.modules, 'mmdet')  # imported again, and put back afterwards
    monkeypatch.setattr('mmcv.__version__', '2.2.0')  # ours, but not mmdet 3.3.0's
    with pytest.raises(ImportError, match=r'refuses its dependencies \(MMCV==2.2.0'):
        check_versions()
