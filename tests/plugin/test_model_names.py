"""Names in mmpaca's metafiles work where mmdet's and mmpretrain's do."""

from pathlib import Path

import pytest
import torch
import yaml
from mmdet.apis import DetInferencer
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain import get_model

NAME = 'mask-rcnn_paca-t_1x_coco'


@pytest.fixture
def downloaded(root, tmp_path, monkeypatch) -> dict:
    """Weights where a download of what the metafile names would have put them."""
    models = yaml.safe_load((root / 'configs/paca_vit/metafile.yml').read_text())['Models']
    (url,) = (model['Weights'] for model in models if model['Name'] == NAME)
    with DefaultScope.overwrite_default_scope('mmdet'):
        cfg = Config.fromfile(root / f'configs/paca_vit/{NAME}.py')
        weights = MODELS.build(cfg.model).state_dict()
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    torch.save(dict(state_dict=weights), tmp_path / 'checkpoints' / Path(url).name)
    return weights


def test_a_detector_by_name_alone(downloaded):
    with DefaultScope.overwrite_default_scope('mmdet'):
        inferencer = DetInferencer(NAME, device='cpu')
    loaded = inferencer.model.state_dict()
    assert loaded.keys() == downloaded.keys()
    assert all(torch.equal(loaded[name], weights) for name, weights in downloaded.items())


def test_detectors_beside_those_of_mmdet(root):
    listed = DetInferencer.list_models('mmdet')
    models = yaml.safe_load((root / 'configs/paca_vit/metafile.yml').read_text())['Models']
    names = [name for model in models for name in (model['Name'], *model.get('Alias', ()))]
    assert [name for name in listed if 'paca' in name] == names
    assert 'rtmdet-s' in listed


def test_segmentors_beside_those_of_mmseg(root):
    MMSegInferencer = pytest.importorskip('mmseg.apis').MMSegInferencer
    listed = MMSegInferencer.list_models('mmseg')
    models = yaml.safe_load((root / 'configs/segmentation/metafile.yml').read_text())['Models']
    assert [name for name in listed if 'paca' in name] == [model['Name'] for model in models]


def test_a_classifier_by_name():
    model = get_model('paca-t_8xb128_in1k')
    assert type(model.backbone).__name__ == 'PaCaViT'
    assert model.backbone.embed_dims == (96, 192, 320, 384)
