"""What model-index.yml says of each config is what the config is."""

import copy
import functools
import importlib.util
import re
from pathlib import Path

import modelindex
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from mmpaca.analysis.model import model_cost

ROOT = Path(__file__).resolve().parent.parent
IMPORTS = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
METAFILES = [yaml.safe_load((ROOT / path).read_text()) for path in IMPORTS]
MODEL_INFOS = {model['Name']: model for metafile in METAFILES for model in metafile['Models']}
# mmseg's configs can be read only where it is installed.
READABLE = [n for n in MODEL_INFOS if 'ade20k' not in n or importlib.util.find_spec('mmseg')]
RELEASE = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/'
# The authors' table contradicts the architecture (see configs/paca_vit/README.md).
CONTRADICTED = {'mask-rcnn_paca-b-teacher_1x_coco', 'paca-b-teacher_8xb128_in1k'}


@functools.cache
def read(path: str) -> Config:
    return Config.fromfile(ROOT / path)


def config_of(info: dict) -> Config:
    return copy.deepcopy(read(info['Config']))


def test_every_config_has_one_entry():
    configs = [
        str(path.relative_to(ROOT))
        for folder in ('paca_vit', 'classification', 'segmentation')
        for path in sorted((ROOT / 'configs' / folder).glob('*.py'))
    ]
    entries = [model['Config'] for metafile in METAFILES for model in metafile['Models']]
    assert sorted(entries) == sorted(configs)
    assert all(Path(info['Config']).stem == name for name, info in MODEL_INFOS.items())
    for path, metafile in zip(IMPORTS, METAFILES, strict=True):
        (collection,) = metafile['Collections']
        assert {model['In Collection'] for model in metafile['Models']} == {collection['Name']}
        assert collection['README'] == str(Path(path).with_name('README.md'))
        readme = (ROOT / collection['README']).read_text()
        for model in metafile['Models']:
            assert f']({Path(model["Config"]).name})' in readme


def test_the_library_behind_mim_reads_it():
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    # It looks for READMEs beside the metafile; OpenMMLab's paths begin at the root.
    assert [e for e in index.check(silent=True) if 'README' not in e] == []
    assert {model.name for model in index.models} == set(MODEL_INFOS)
    paper = index.models[0].full_model.paper
    assert paper['URL'] == 'https://arxiv.org/abs/2203.11987'


def test_aliases_are_the_names_that_users_type_first():
    aliases = {a: info['Config'] for info in MODEL_INFOS.values() for a in info.get('Alias', [])}
    assert set(aliases) == {'mask_rcnn_paca', 'retinanet_paca'}
    for alias, path in aliases.items():
        assert (
            f'./{Path(path).relative_to("configs")}' in (ROOT / f'configs/{alias}.py').read_text()
        )


def test_weights_are_the_authors():
    """Figures only where the authors have some; a detector starts from weights they published."""
    classifiers = {info.get('Weights') for info in MODEL_INFOS.values() if 'in1k' in info['Name']}
    for name, info in MODEL_INFOS.items():
        published = 'in1k' in name or re.match('mask-rcnn.*_1x_', name)
        published = published or 'ade20k' in name and 'paca-t-teacher' not in name
        assert ('Results' in info) == bool(published)
        if 'Weights' in info:
            assert 'Results' in info and info['Weights'].startswith(RELEASE)
            assert info['Converted From'] == {
                'Weights': info['Weights'],
                'Code': 'https://github.com/iVMCL/PaCaViT',
            }
        if name not in READABLE:
            continue
        init_cfg = config_of(info).model.backbone.get('init_cfg')
        if init_cfg:
            assert init_cfg.checkpoint in classifiers
    assert sum('Weights' in info for info in MODEL_INFOS.values()) == 31


def test_epochs_are_the_configs():
    for name in READABLE:
        info = MODEL_INFOS[name]
        cfg, metadata = config_of(info), info['Metadata']
        if 'max_iters' in cfg.train_cfg:
            assert metadata['Iterations'] == cfg.train_cfg.max_iters
        elif 'in1k' not in info['Name']:  # those are the collection's
            assert metadata['Epochs'] == cfg.train_cfg.max_epochs


@pytest.mark.parametrize('name', READABLE)
def test_parameters(name):
    info = MODEL_INFOS[name]
    cfg = config_of(info)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        params = sum(p.numel() for p in MODELS.build(cfg.model).parameters())
    if 'Results' not in info:
        assert params == info['Metadata']['Parameters']
    elif name not in CONTRADICTED:
        assert params == pytest.approx(info['Metadata']['Parameters'], rel=0.015)


def shape_of(name: str) -> tuple[int, int]:
    """Height and width of the input for which a model's cost is stated."""
    sides = {
        'ade20k': (512, 512),
        'rtmdet': (640, 640),
        '_32': (32, 32),
        '_224': (224, 224),
        'in1k': (224, 224),
    }
    return next((sides[part] for part in sides if part in name), (800, 1280))


# Of the segmentors, which take seconds, one of each kind; `mmpaca flops --published` counts all.
COUNTED = 'atss|retina|rtm|paca-(?!head)|(paca-head|upernet)_paca-t_|paca-head_paca-t-teacher'


@pytest.mark.parametrize('name', [n for n in READABLE if re.match(COUNTED, n)])
def test_flops(name):
    info = MODEL_INFOS[name]
    with torch.device('meta'):
        counted = model_cost(config_of(info), shape_of(name)).macs
    if 'Results' not in info:
        assert counted == info['Metadata']['FLOPs']
    else:  # the authors', of two digits
        assert counted == pytest.approx(info['Metadata']['FLOPs'], rel=0.016)


class ZeroProducts(TorchDispatchMode):
    """What takes long, products and normalisations, gives zeros: counting needs the shapes only."""

    SLOW = (
        'addmm',
        'baddbmm',
        'bmm',
        'convolution',
        'mm',
        'gelu',
        'native_layer_norm',
        'roi_align',
    )
    SLOW += ('_scaled_dot_product_flash_attention_for_cpu',)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ not in self.SLOW:
            return func(*args, **(kwargs or {}))
        shapes = tree_map_only(torch.Tensor, lambda tensor: tensor.to('meta'), args)
        results = func(*shapes, **(kwargs or {}))
        return tree_map_only(torch.Tensor, lambda t: torch.zeros_like(t, device='cpu'), results)


@pytest.mark.parametrize(
    'name',
    [
        'faster-rcnn_paca-t_1x_coco',
        'cascade-rcnn_paca-t_1x_coco',
        'mask-rcnn_paca-t_3x_coco',
        'dino-4scale_paca-t_8xb2-12e_coco',
        'mask2former_paca-t_8xb2-lsj-50e_coco-panoptic',
    ],
)
def test_flops_of_what_needs_values(name, monkeypatch):
    """One of a family, for it takes seconds; `mmpaca flops --published` counts the authors'."""
    monkeypatch.setattr(  # samples and weighs values: no products of matrices
        'mmcv.ops.multi_scale_deform_attn.multi_scale_deformable_attn_pytorch',
        lambda value, shapes, points, weights: value.new_zeros(
            *points.shape[:2], value[0, 0].numel()
        ),
    )
    with ZeroProducts():
        cost = model_cost(config_of(MODEL_INFOS[name]), shape_of(name))
    assert cost.macs == MODEL_INFOS[name]['Metadata']['FLOPs']
    if name == 'mask-rcnn_paca-t_3x_coco':
        # The published counters take the transposed convolution for four times as much.
        upsample = cost.macs_by_module['roi_head.mask_head.upsample']
        published = MODEL_INFOS['mask-rcnn_paca-t_1x_coco']['Metadata']['FLOPs']
        assert cost.macs + 3 * upsample == pytest.approx(published, rel=0.015)
