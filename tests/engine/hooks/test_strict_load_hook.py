"""Checkpoints that do not match are refused; fine-tuning may change the number of classes."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmdet.models import DetTTAModel
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from toy import TINY

from mmpaca.engine import StrictLoadHook
from mmpaca.engine.hooks.strict_load_hook import _add_class

CLASSES = ('num_classes', 'num_things_classes')


def test_matching_weights_pass_and_others_are_refused(runner, tmp_path):
    weights = runner().model.state_dict()

    def test(weights: dict, **options) -> Runner:
        torch.save(dict(state_dict=weights), tmp_path / 'given.pth')
        tester = runner(load_from=str(tmp_path / 'given.pth'), **options)
        tester.load_or_resume()
        return tester

    loaded = test(weights).model.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in weights.items())
    # As DistributedDataParallel saves it.
    test({f'module.{k}': v for k, v in weights.items()})

    only_backbone = {k: v for k, v in weights.items() if k.startswith('backbone.')}
    with pytest.raises(RuntimeError, match='MaskRCNN .*: 0 of .*missing: neck.*init_cfg'):
        test(only_backbone)
    other_classes = {**weights, 'roi_head.bbox_head.fc_cls.weight': torch.zeros(3, 256)}
    with pytest.raises(
        RuntimeError,
        match=r'1 wrong shape: roi_head.bbox_head.fc_cls.weight \(3, 256\) instead of \(5, 256\)',
    ):
        test(other_classes)
    with pytest.raises(RuntimeError, match='1 unexpected: neck.extra'):
        test({**weights, 'neck.extra': torch.zeros(1)})

    neck = 'neck.lateral_convs.0.conv.weight'
    for lenient in (dict(strict=False), dict(enabled=False)):
        options = {f'default_hooks.strict_load.{key}': value for key, value in lenient.items()}
        loaded = test(other_classes, **options).model.state_dict()
        assert torch.equal(loaded[neck], weights[neck])
    # The backbone is always strict: random weights there are never intended.
    with pytest.raises(RuntimeError, match="under 'backbone.'"):
        test({k: v for k, v in weights.items() if 'attn.q' not in k}, **options)


def test_test_time_augmentation_wraps_the_same_model(runner):
    model = runner().model
    wrapped = SimpleNamespace(model=DetTTAModel(module=model))
    weights = model.state_dict()
    hook = StrictLoadHook()
    hook.after_load_checkpoint(wrapped, dict(state_dict=weights))
    del weights['neck.lateral_convs.0.conv.weight']
    with pytest.raises(RuntimeError, match='1 missing: neck.lateral_convs.0.conv.weight'):
        hook.after_load_checkpoint(wrapped, dict(state_dict=weights))


def set_classes(node, number: int) -> None:
    """Set the number of classes everywhere in a model's config."""
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict | list | tuple):
            set_classes(child, number)
    if isinstance(node, dict):
        node.update({key: number for key in CLASSES if node.get(key)})


def tiny(root, path: str) -> Config:
    cfg = Config.fromfile(root / 'configs' / path)
    cfg.model.backbone.update(arch=TINY, init_cfg=None)
    for part in ('neck', 'panoptic_head'):
        if isinstance(getattr(cfg.model.get(part), 'in_channels', None), list):
            cfg.model[part].in_channels = [8] * len(cfg.model[part].in_channels)
    if cfg.default_scope == 'mmpretrain':
        cfg.model.head.in_channels = 8
    return cfg


def training(cfg: Config, classes: int) -> SimpleNamespace:
    """The parts of a Runner that is about to train."""
    cfg = copy.deepcopy(cfg)
    set_classes(cfg.model, classes)
    model = MODELS.build(copy.deepcopy(cfg.model))
    if hasattr(model, 'level_embed'):  # DINO leaves it to init_weights: any memory, even NaN
        torch.nn.init.normal_(model.level_embed)
    said = []
    return SimpleNamespace(
        cfg=cfg,
        model=model,
        optim_wrapper=OptimWrapper(torch.optim.SGD(model.parameters(), 1)),
        _resume=False,
        logger=SimpleNamespace(warning=said.append),
        said=said,
    )


LAYERS = {
    'demo/mask-rcnn_paca-demo_shapes.py': ['fc_cls', 'conv_logits'],
    'paca_vit/mask-rcnn_paca-t_1x_coco.py': ['fc_cls', 'fc_reg', 'conv_logits'],
    'paca_vit/retinanet_paca-t_1x_coco.py': ['retina_cls'],
    'paca_vit/cascade-mask-rcnn_paca-s_1x_coco.py': [
        *(f'bbox_head.{i}.fc_cls' for i in range(3)),
        *(f'mask_head.{i}.conv_logits' for i in range(3)),
    ],
    'paca_vit/rtmdet-ins_m_paca-t_8xb32-300e_coco.py': [f'rtm_cls.{i}' for i in range(3)],
    'paca_vit/dino-4scale_paca-t_8xb2-12e_coco.py': [
        *(f'cls_branches.{i}' for i in range(7)),
        'label_embedding',
    ],
    'paca_vit/mask2former_paca-t_8xb2-lsj-50e_coco.py': ['cls_embed'],
    'classification/paca-t_cifar100_224.py': ['head.fc'],
}


@pytest.mark.parametrize('path', LAYERS)
def test_finetuning_from_80_to_4_classes(root, path):
    cfg = tiny(root, path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        trained = training(cfg, 80).model.state_dict()
        runner = training(cfg, 4)
        own = {k: v.clone() for k, v in runner.model.state_dict().items()}
        checkpoint = dict(state_dict=dict(trained))
        StrictLoadHook().after_load_checkpoint(runner, checkpoint)
        runner.model.load_state_dict(checkpoint['state_dict'])
        loaded = runner.model.state_dict()
        renewed = {k for k, v in loaded.items() if v.shape != trained[k].shape}
        for name, value in loaded.items():
            expected = (own if name in renewed else trained)[name]
            torch.testing.assert_close(value, expected, rtol=0, atol=0)
        modules = {k.rpartition('.')[0] for k in renewed}
        assert len(modules) == len(LAYERS[path])
        assert all(any(m.endswith(layer) for m in modules) for layer in LAYERS[path])
        (said,) = runner.said
        assert all(name in said for name in renewed)

        # Testing and resuming stay strict.
        tested = SimpleNamespace(model=runner.model, optim_wrapper=dict(), cfg=runner.cfg)
        resumed = SimpleNamespace(**{**vars(runner), '_resume': True})
        for strict in (tested, resumed):
            with pytest.raises(RuntimeError, match=f'{len(renewed)} wrong shape'):
                StrictLoadHook().after_load_checkpoint(strict, dict(state_dict=dict(trained)))


def test_finetuning_accepts_nothing_else(root):
    cfg = tiny(root, 'demo/mask-rcnn_paca-demo_shapes.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        trained = training(cfg, 9).model.state_dict()
        runner = training(cfg, 4)

        def load(change: dict) -> None:
            StrictLoadHook().after_load_checkpoint(runner, dict(state_dict=trained | change))

        load({})
        head = 'roi_head.bbox_head.fc_cls.weight'
        for change, wrong in (
            ({'neck.fpn_convs.0.conv.weight': torch.zeros(64, 32, 3, 3)}, '1 wrong shape: neck'),
            ({head: torch.zeros(10, 128)}, '1 wrong shape: roi_head.bbox_head.fc_cls.weight'),
            ({head: torch.zeros(8, 256)}, '4 wrong shape'),  # 7 classes here, 9 elsewhere
            ({'neck.extra': torch.zeros(1)}, '1 unexpected'),
        ):
            with pytest.raises(RuntimeError, match=wrong):
                load(change)
        del trained['rpn_head.rpn_cls.bias']
        with pytest.raises(RuntimeError, match='1 missing: rpn_head.rpn_cls.bias'):
            load({})


def test_panoptic_classes_of_things_and_stuff():
    config = dict(
        head=dict(num_things_classes=80, num_stuff_classes=53), other=[dict(num_classes=2)]
    )
    assert _add_class(config, CLASSES)
    assert config['head'] == dict(num_things_classes=81, num_stuff_classes=53)
    assert config['other'] == [dict(num_classes=3)]
    assert not _add_class(dict(num_stuff_classes=0), ('num_stuff_classes',))
