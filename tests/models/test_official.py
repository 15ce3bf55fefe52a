import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from official import VARIANTS, official_weights

from mmpaca.checkpoint import convert_official
from mmpaca.models import PaCaViT
from mmpaca.models.official import PREPROCESSING


@pytest.fixture(scope='module')
def classifier() -> dict:
    return official_weights('tiny_conv')


def as_detector(classifier: dict, prefix: str = '') -> dict:
    """A detector file as the official training writes it."""
    backbone = {f'backbone.{k}': v for k, v in classifier.items() if not k.startswith('head.')}
    others = {
        'neck.lateral_convs.0.conv.weight': torch.ones(2),
        'roi_head.bbox_head.fc_cls.bias': torch.ones(3),
    }
    return {prefix + k: v for k, v in {**backbone, **others}.items()}


@pytest.mark.parametrize('prefix', ['', 'module.', 'model.'])
def test_classifier_file(classifier, prefix):
    given = {prefix + k: v for k, v in classifier.items()}
    expected = set(PaCaViT('tiny').state_dict())
    assert set(convert_official(given, 'backbone')) == expected
    both = convert_official(given, 'classifier')
    assert set(both) == {f'backbone.{k}' for k in expected} | {'head.fc.weight', 'head.fc.bias'}
    assert both['head.fc.weight'] is classifier['head.weight']
    assert (
        both['backbone.stages.2.blocks.3.mlp.dwconv.bias']
        is classifier['stage3.3.mlp.dwconv.dwconv.bias']
    )
    assert set(convert_official(given, 'detector')) == {f'backbone.{k}' for k in expected}


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_detector_file(classifier, prefix):
    given = as_detector(classifier, prefix)
    expected = set(PaCaViT('tiny').state_dict())
    converted = convert_official(given, 'detector')
    assert set(converted) == {f'backbone.{k}' for k in expected} | {
        'neck.lateral_convs.0.conv.weight',
        'roi_head.bbox_head.fc_cls.bias',
    }
    assert set(convert_official(given, 'backbone')) == expected
    assert len(given) == len(converted)


def test_the_input_is_unchanged(classifier):
    before = dict(classifier)
    convert_official(classifier, 'classifier')
    assert classifier == before


def test_errors_name_what_is_wrong(classifier):
    with pytest.raises(ValueError, match="task='segmentor' is unknown"):
        convert_official(classifier, 'segmentor')
    with pytest.raises(ValueError, match='no tensor has a name.*layer1.weight'):
        convert_official({'layer1.weight': torch.zeros(1)}, 'backbone')
    with pytest.raises(ValueError, match='no tensor has a name'):
        convert_official(PaCaViT('tiny').state_dict(), 'backbone')
    with pytest.raises(ValueError, match='1 unknown backbone tensors.*stage1.0.rel_pos'):
        convert_official({**classifier, 'stage1.0.rel_pos': torch.zeros(1)}, 'backbone')
    with pytest.raises(ValueError, match='head.weight'):
        convert_official(as_detector(classifier), 'classifier')


def test_classifier_reaches_mmpretrain():
    """Names and values: mmpretrain's ImageClassifier equals backbone, mean and linear layer."""
    classifier = dict(
        type='ImageClassifier',
        backbone=dict(type='PaCaViT', out_indices=(3,), **VARIANTS['tiny_conv']),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=384),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(classifier).eval()
    official = official_weights('tiny_conv')
    missing = model.load_state_dict(convert_official(official, 'classifier'))
    assert not missing.missing_keys and not missing.unexpected_keys
    x = torch.randn(1, 3, 64, 64)
    features = model.backbone(x)[0].mean((2, 3))
    expected = features @ official['head.weight'].T + official['head.bias']
    torch.testing.assert_close(model(x), expected, atol=1e-4, rtol=1e-4)


def test_converter_script(tool, tmp_path, classifier):
    script = 'converters/convert_official.py'
    torch.save(dict(state_dict=classifier), tmp_path / 'official.pth')
    printed = tool(script, 'official.pth', 'backbone.pth')
    assert printed == 'wrote 237 tensors to backbone.pth (2 dropped)\n'
    model = PaCaViT(
        'tiny', init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'backbone.pth'))
    )
    model.init_weights()
    assert torch.equal(model.stem.norm.weight, classifier['patch_embed.norm.weight'])
    printed = tool(script, 'official.pth', 'cls.pth', '--task', 'classifier')
    assert printed == 'wrote 239 tensors to cls.pth\n'
    converted = torch.load(tmp_path / 'cls.pth')
    assert 'head.fc.weight' in converted['state_dict']
    assert converted['meta'] == dict(data_preprocessor=PREPROCESSING)  # says what it expects
    printed = tool(script, 'nowhere.pth', 'x.pth', ok=False)
    assert printed == 'error: checkpoint nowhere.pth does not exist\n'
    torch.save([1], tmp_path / 'list.pth')
    for name in (script, 'converters/to_safetensors.py'):
        printed = tool(name, 'list.pth', 'x.safetensors', ok=False)
        assert printed.startswith('error: a checkpoint is a dict of tensors')
    assert not list(tmp_path.glob('x.*'))
