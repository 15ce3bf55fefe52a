"""Classification through mmpretrain: recipes, the authors' numbers, and from there to a detector."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_checkpoint
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from official import GOLDEN, SHAPES, official_weights
from PIL import Image

from mmpaca.checkpoint import convert_official
from mmpaca.models import PaCaViT

ROOT = Path(__file__).resolve().parent.parent
IMAGENET = {  # how the configs are called, and the authors' variants
    'paca-t': 'tiny_conv',
    'paca-s': 'small_conv',
    'paca-b': 'base_conv',
    'paca-s-mlp': 'small_mlp',
    'paca-s-teacher': 'small_teacher',
    'paca-b-teacher': 'base_teacher',
    'paca-s-m2': 'small_conv_2_0',
    'paca-s-m49': 'small_conv_49_0',
    'paca-s-m49-100': 'small_conv_49_100',
    'paca-s-m100-49': 'small_conv_100_49',
    'paca-s-m100': 'small_conv_100',
    'paca-s-blockwise': 'small_blockwise',
}
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ('configs/classification/*.py', 'configs/demo/*_digits.py')
    for path in ROOT.glob(pattern)
)
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    """What Runner sets from the config's default_scope."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def imagenet(name: str) -> Config:
    return Config.fromfile(ROOT / f'configs/classification/{name}_8xb128_in1k.py')


def build(cfg: Config) -> torch.nn.Module:
    """As Runner does, with the preprocessor beside the model."""
    return MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))


def test_every_published_figure_has_a_config():
    names = {Path(c).name.removesuffix('_8xb128_in1k.py') for c in CONFIGS if 'in1k' in c}
    assert names == set(IMAGENET)


@pytest.mark.parametrize('name', IMAGENET)
def test_a_config_is_the_published_model(name):
    """By the names and shapes of the authors' file, head included."""
    cfg = imagenet(name)
    with torch.device('meta'):
        ours = build(cfg).state_dict()
    official = {
        key: torch.empty([n for n in shape if n != 'int64'], device='meta')
        for key, shape in SHAPES[IMAGENET[name]].items()
    }
    expected = convert_official(official, 'classifier')
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in expected.items()}
    assert cfg.model.backbone.drop_path_rate == (0.5 if name == 'paca-b' else 0.1)
    clip = dict(max_norm=1.0) if name.startswith('paca-b') else None
    assert cfg.optim_wrapper.get('clip_grad') == clip


def test_recipe():
    cfg = imagenet('paca-t')
    optimizer = {k: v for k, v in cfg.optim_wrapper.optimizer.items() if k != '_scope_'}
    assert optimizer == dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05, eps=1e-8)
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 1024
    warmup, cosine = cfg.param_scheduler
    assert warmup.start_factor * 1e-3 == pytest.approx(5e-7)
    assert (warmup.end, cosine.begin, cosine.end, cosine.eta_min) == (5, 5, 300, 5e-6)
    assert cfg.train_cfg.max_epochs == 300
    assert [(a.type, a.alpha) for a in cfg.model.train_cfg.augments] == [
        ('Mixup', 0.8),
        ('CutMix', 1.0),
    ]
    assert cfg.model.head.loss.label_smooth_val == 0.1
    train = {t.type: t for t in cfg.train_dataloader.dataset.pipeline}
    augment, erase = train['RandAugment'], train['RandomErasing']
    assert (augment.num_policies, augment.magnitude_level, augment.magnitude_std) == (2, 9, 0.5)
    assert augment.policies == 'timm_increasing' and augment.hparams.interpolation == 'bicubic'
    assert (erase.erase_prob, erase.mode) == (0.25, 'rand')
    assert train['RandomResizedCrop'].interpolation == 'bicubic'
    assert (cfg.data_preprocessor.mean, cfg.data_preprocessor.std) == (MEAN, STD)
    # Norms and biases do not decay.
    wrapper = build_optim_wrapper(build(cfg), cfg.optim_wrapper)
    for group in wrapper.optimizer.param_groups:
        assert group['weight_decay'] == (0.05 if group['params'][0].ndim > 1 else 0.0)


@pytest.mark.parametrize('path', CONFIGS)
def test_trains_a_step_and_predicts(path):
    torch.manual_seed(0)
    cfg = Config.fromfile(ROOT / path)
    cfg.model.head.num_classes = cfg.data_preprocessor.num_classes = 7
    model = build(cfg)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    samples = [DataSample().set_gt_label(label) for label in (2, 5)]
    with_grad = set()
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: with_grad.add(name))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    cfg.optim_wrapper.setdefault('type', 'OptimWrapper')
    losses = model.train().train_step(
        dict(inputs=images, data_samples=samples), build_optim_wrapper(model, cfg.optim_wrapper)
    )
    assert losses['loss'].isfinite() and losses['loss'] > 0
    # DDP without find_unused_parameters: every parameter takes part.
    assert with_grad == set(before)
    moved = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
    assert len(moved) > 0.9 * len(before)
    for result in model.eval().test_step(dict(inputs=images, data_samples=samples)):
        assert result.pred_score.shape == (7,)
        assert result.pred_score.sum().item() == pytest.approx(1, abs=1e-5)


def noise() -> torch.Tensor:
    """The input behind the even_* numbers of golden.json."""
    return torch.from_numpy(
        np.random.RandomState(7).standard_normal((1, 3, 64, 96)).astype(np.float32)
    )


def is_golden(logits: torch.Tensor, variant: str, tolerance: float) -> bool:
    golden = GOLDEN[variant]['even_logits']
    assert list(logits.shape) == golden['shape']
    expected = torch.tensor(golden['value'], dtype=torch.float64)
    return (logits.flatten()[golden['index']] - expected).abs().max() < tolerance


@pytest.fixture(scope='module', params=['paca-t', 'paca-s-mlp'])
def official(request, tmp_path_factory) -> tuple[str, Path]:
    """A config's name and a file as the authors release it."""
    path = tmp_path_factory.mktemp('official') / 'IMNET_224.pth'
    torch.save(dict(state_dict=official_weights(IMAGENET[request.param])), path)
    return request.param, path


@pytest.mark.parametrize('how', ['init_cfg', 'load_from'])
def test_official_file_gives_the_golden_logits(official, how):
    name, path = official
    cfg = imagenet(name)
    if how == 'init_cfg':
        cfg.model.init_cfg = dict(type='Pretrained', checkpoint=str(path))
    model = build(cfg)
    if how == 'init_cfg':
        model.init_weights()
    else:
        load_checkpoint(model, str(path), map_location='cpu')
    model = model.eval()
    with torch.no_grad():
        # Images that are this noise after the preprocessor: BGR, mean and std undone.
        pixels = noise() * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
        data = model.data_preprocessor(dict(inputs=pixels.flip(1)))
        assert is_golden(model(data['inputs'], mode='tensor'), IMAGENET[name], 2e-3)
        logits = model.double()(noise().double(), mode='tensor')
    assert is_golden(logits, IMAGENET[name], 1e-5)


@pytest.fixture
def pictures(tmp_path) -> Path:
    """ImageNet's layout with one landscape and one portrait image."""
    rng = np.random.RandomState(3)
    for label, size in enumerate([(300, 260), (230, 410)]):
        folder = tmp_path / f'imagenet/val/n{label}'
        folder.mkdir(parents=True)
        coarse = Image.fromarray(rng.randint(0, 256, (9, 9, 3), dtype=np.uint8))
        coarse.resize(size, Image.BICUBIC).save(folder / 'image.png')
    return tmp_path / 'imagenet'


def test_official_file_through_the_test_pipeline(pictures, tmp_path):
    """Runner.test on an image file equals what torchvision's transforms and the bare model give."""
    weights = official_weights('tiny_conv')
    torch.save(dict(state_dict=weights), tmp_path / 'official.pth')
    cfg = imagenet('paca-t')
    dataset = cfg.test_dataloader.dataset
    dataset.update(type='CustomDataset', data_root=str(pictures), data_prefix='val')
    dataset.pop('split')
    cfg.test_dataloader.update(batch_size=2, num_workers=0)
    cfg.test_dataloader.collate_fn = dict(type='default_collate')
    cfg.update(work_dir=str(tmp_path / 'out'), load_from=str(tmp_path / 'official.pth'))
    cfg.train_dataloader = cfg.train_cfg = cfg.optim_wrapper = cfg.param_scheduler = None
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    runner = Runner.from_cfg(cfg)
    metrics = runner.test()

    transform = T.Compose([T.Resize(248, T.InterpolationMode.BICUBIC), T.CenterCrop(224)])
    images = [transform(Image.open(p)) for p in sorted(pictures.rglob('*.png'))]
    images = torch.stack([torch.from_numpy(np.array(i)).permute(2, 0, 1) for i in images])
    batch = runner.model.data_preprocessor(pseudo_collate(list(runner.test_dataloader.dataset)))
    normalised = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert (batch['inputs'] - normalised).abs().max() < 1e-5

    backbone = PaCaViT('tiny').eval()
    backbone.load_state_dict(convert_official(weights, 'backbone'))
    with torch.no_grad():
        pooled = backbone(normalised)[-1].mean((2, 3))
        expected = pooled @ weights['head.weight'].T + weights['head.bias']
        logits = runner.model.eval()(batch['inputs'], mode='tensor')
    assert (logits - expected).abs().max() < 2e-3
    labels = torch.tensor([0, 1])
    for k in (1, 5):
        hits = (expected.topk(k).indices == labels[:, None]).any(1).float().mean() * 100
        assert metrics[f'accuracy/top{k}'] == pytest.approx(hits.item())


def classifier_file(cfg: Config, path: Path) -> dict[str, torch.Tensor]:
    """A checkpoint as mmpretrain's Runner writes it, of a model as ``cfg`` builds it."""
    torch.manual_seed(1)
    weights = build(cfg).state_dict()
    torch.save(dict(meta=dict(), state_dict=weights), path)
    return weights


def test_a_classifier_trained_here_starts_a_detector(tmp_path):
    from mmdet.registry import MODELS as DETECTORS

    cfg = Config.fromfile(ROOT / 'configs/demo/paca-demo_digits.py')
    weights = classifier_file(cfg, tmp_path / 'digits.pth')
    detector = Config.fromfile(ROOT / 'configs/demo/mask-rcnn_paca-demo_shapes_from-digits.py')
    detector.model.backbone.init_cfg.checkpoint = str(tmp_path / 'digits.pth')
    with DefaultScope.overwrite_default_scope('mmdet'), warnings.catch_warnings():
        warnings.simplefilter('error')  # nothing is initialised anew
        model = DETECTORS.build(detector.model)
        model.init_weights()
    backbone = {k[9:]: v for k, v in weights.items() if k.startswith('backbone.')}
    arrived = model.backbone.state_dict()
    assert arrived.keys() == backbone.keys() and len(backbone) == 188
    assert all(torch.equal(arrived[name], value) for name, value in backbone.items())


def test_differences_to_the_classifier_are_named(tmp_path):
    cfg = Config.fromfile(ROOT / 'configs/demo/paca-demo_digits.py')
    weights = classifier_file(cfg, tmp_path / 'digits.pth')
    given = dict(type='Pretrained', checkpoint=str(tmp_path / 'digits.pth'), prefix='backbone.')
    cfg.model.backbone.update(num_clusters=(49, 16, 0, 0), init_cfg=given)
    model = build(cfg)
    with pytest.warns(UserWarning, match=r're-initialised: stages\.1\.blocks\.0\.attn\.clust'):
        model.init_weights()
    arrived = model.backbone.state_dict()
    differing = [k for k, v in arrived.items() if not torch.equal(v, weights['backbone.' + k])]
    assert differing == ['stages.1.blocks.0.attn.clustering.4.weight']

    cfg = Config.fromfile(ROOT / 'configs/demo/paca-demo_digits.py')
    cfg.model.head.num_classes = cfg.data_preprocessor.num_classes = 7
    cfg.update(work_dir=str(tmp_path / 'out'), load_from=str(tmp_path / 'digits.pth'))
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        cfg[key] = None
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    runner = Runner.from_cfg(cfg)
    with pytest.raises(RuntimeError, match=r'head\.fc\.weight \(10, 192\) instead of \(7, 192\)'):
        runner.load_or_resume()
