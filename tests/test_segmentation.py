"""Segmentation through mmseg: recipes, a step of every config, resuming, fine-tuning, bad data."""

import gzip
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, DefaultScope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from official import DATA, official_tensors
from PIL import Image
from segmentation import HEIGHT, ROOT, WIDTH, shrink, tiny_config, write_camvid

from mmpaca.apis.flops import SEG_TOLERANCES, Comparison
from mmpaca.apis.inference import Predictor
from mmpaca.checkpoint import load_from_local
from mmpaca.datasets import SegFileError
from mmpaca.engine.hooks.config_check_hook import _check_decode_heads

pytest.importorskip('mmseg')
from mmseg.structures import SegDataSample

FOLDER = ROOT / 'configs/segmentation'
ADE20K = sorted(path.stem for path in FOLDER.glob('*ade20k*.py'))
CONFIGS = [*(f'{name}.py' for name in ADE20K)] + [
    f'camvid/{path.name}' for path in sorted((FOLDER / 'camvid').glob('*.py'))
]


pytestmark = [
    pytest.mark.filterwarnings('ignore:``build_loss`` would be deprecated soon'),
    pytest.mark.filterwarnings('ignore:Default ``avg_non_ignore`` is False'),  # as in the authors'
]


@pytest.fixture(autouse=True)
def mmseg_scope():
    """What Runner sets from the config's default_scope."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


@pytest.fixture(scope='module')
def camvid(tmp_path_factory):
    return write_camvid(tmp_path_factory.mktemp('camvid'))


def batch(num_classes: int) -> dict:
    """Two images, as the data loader hands them over."""
    rng, samples, inputs = np.random.RandomState(0), [], []
    for _ in range(2):
        labels = torch.from_numpy(rng.randint(0, num_classes, (1, HEIGHT, WIDTH)))
        labels[:, :4] = 255
        shape = (HEIGHT, WIDTH)
        sample = SegDataSample(
            gt_sem_seg=PixelData(data=labels),
            metainfo=dict(img_shape=shape, ori_shape=shape, pad_shape=shape),
        )
        samples.append(sample)
        inputs.append(torch.from_numpy(rng.randint(0, 256, (3, *shape), dtype=np.uint8)))
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize('path', CONFIGS)
def test_predicts_and_trains_a_step(path):
    torch.manual_seed(0)
    cfg = Config.fromfile(FOLDER / path)
    shrink(cfg.model)
    cfg.model.data_preprocessor.size = (HEIGHT, WIDTH)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))  # as Runner does without GPUs
    num_classes = model.decode_head.num_classes
    assert num_classes == (11 if 'camvid' in path else 150)
    _check_decode_heads(model)
    with torch.no_grad():
        results = model.eval().test_step(batch(num_classes))
    for result in results:
        assert result.seg_logits.data.shape == (num_classes, HEIGHT, WIDTH)
        assert torch.equal(result.pred_sem_seg.data[0], result.seg_logits.data.argmax(0))
    with_grad = set()
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: with_grad.add(name))
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = model.train().train_step(batch(num_classes), optim_wrapper)
    assert losses['loss'].item() > 0 and all(v.isfinite().all() for v in losses.values())
    # DDP without find_unused_parameters: every parameter takes part.
    assert with_grad == set(before)
    assert sum(not torch.equal(p, before[n]) for n, p in model.named_parameters()) > 0.9 * len(
        before
    )


@pytest.mark.parametrize('name', ADE20K)
def test_ade20k_recipe(name):
    cfg = Config.fromfile(FOLDER / f'{name}.py')
    assert cfg.train_cfg.max_iters == 160000 and cfg.train_cfg.val_interval == 16000
    assert cfg.default_hooks.checkpoint.interval == 16000
    assert cfg.default_hooks.checkpoint.type == 'mmpaca.AtomicCheckpointHook'
    optimizer = {k: v for k, v in cfg.optim_wrapper.optimizer.items() if k != '_scope_'}
    assert optimizer == dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01)
    assert cfg.optim_wrapper.get('clip_grad') is None
    warmup, decay = cfg.param_scheduler
    assert (warmup.start_factor, warmup.end, warmup.by_epoch) == (1e-6, 1500, False)
    assert (decay.type, decay.power, decay.eta_min) == ('PolyLR', 1.0, 0.0)
    assert (decay.begin, decay.end) == (1500, 160000)
    assert cfg.train_dataloader.batch_size == 2 and cfg.val_dataloader.batch_size == 1
    assert cfg.model.data_preprocessor.size == (512, 512)
    is_base = '_paca-b' in name and name.startswith('paca-head')
    assert cfg.model.backbone.drop_path_rate == (0.5 if is_base else 0.1)
    loss = cfg.model.decode_head.get('loss_decode')
    assert (loss is None) == name.startswith('paca-head')  # which has its own


@pytest.mark.parametrize(
    ('name', 'renewed'),
    [('paca-head_paca-t', True), ('paca-head_paca-s-mlp', False),
     ('paca-head_paca-t-teacher', False), ('upernet_paca-t', False)],
)  # fmt: skip
def test_groups_of_the_optimizer(name, renewed):
    """Ten times the rate for the head and clustering.4; no decay of the backbone's LayerNorms."""
    cfg = Config.fromfile(FOLDER / f'{name}_8xb2-160k_ade20k-512x512.py')
    shrink(cfg.model)
    model = MODELS.build(cfg.model)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    found = {p: (g['lr'] / 6e-5, g['weight_decay']) for g in groups for p in g['params']}
    norms = {
        p
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.LayerNorm) and not name.startswith('backbone.teacher')
        for p in module.parameters()
    }
    boosted = []
    for parameter_name, parameter in model.named_parameters():
        fast = name.startswith('paca-head') and (
            parameter_name.startswith('decode_head') or 'clustering.4' in parameter_name
        )
        boosted += [parameter_name] * fast
        expected = (pytest.approx(10.0 if fast else 1.0), 0.0 if parameter in norms else 0.01)
        assert found[parameter] == expected, parameter_name
    assert any('backbone' in name for name in boosted) == renewed


def test_authors_file_gives_the_authors_numbers(tmp_path):
    """The ADE20K config with a file of their names: their logits, to float32's rounding."""
    golden = json.loads(gzip.decompress((DATA / 'golden_seg.json.gz').read_bytes()))
    golden = golden['pacahead_tiny_conv']
    torch.save(dict(state_dict=official_tensors(golden['shapes'])), tmp_path / 'authors.pth')
    cfg = Config.fromfile(FOLDER / 'paca-head_paca-t_8xb2-160k_ade20k-512x512.py')
    predictor = Predictor(cfg, tmp_path / 'authors.pth', 'cpu')
    assert len(predictor.classes) == 150 and predictor.classes[:2] == ('wall', 'building')
    x = torch.from_numpy(np.random.RandomState(7).standard_normal((2, 3, 64, 96))).float()
    with torch.no_grad():
        logits = predictor.model(x, mode='tensor').flatten()
    expected = golden['arrays']['even_logits']
    error = logits[torch.tensor(expected['index'])] - torch.tensor(expected['value'])
    assert error.abs().max() < 1e-4 * expected['mean_std_absmax'][2]


@pytest.mark.parametrize(
    ('params', 'macs', 'matches'),
    [
        ((23_163_788, 23_200_000), (46_974_156_800, 47_200_000_000), True),
        ((23_163_788, 23_400_000), (46_974_156_800, 47_300_000_000), False),  # m49, in their table
        ((23_163_788, 23_200_000), (46_974_156_800, 47_600_000_000), False),
    ],
)
def test_published_figures_that_contradict_the_config(params, macs, matches):
    assert Comparison('s', params, macs, SEG_TOLERANCES).matches == matches


def train(cfg: Config) -> Runner:
    cfg.experiment_name = cfg.work_dir.replace('/', '_')
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.fixture(scope='module')
def trained(camvid, tmp_path_factory):
    """Two iterations; after the first and second there is a checkpoint."""
    folder = tmp_path_factory.mktemp('trained')
    with DefaultScope.overwrite_default_scope('mmseg'):
        train(tiny_config(camvid, folder))
    return folder


def test_a_resumed_run_is_the_same_run(camvid, trained, tmp_path):
    (tmp_path / 'iter_1.pth').symlink_to(trained / 'iter_1.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_1.pth'))
    train(tiny_config(camvid, tmp_path, resume=True))
    ours, theirs = (load_from_local(f / 'iter_2.pth')['state_dict'] for f in (tmp_path, trained))
    first = load_from_local(trained / 'iter_1.pth')['state_dict']
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert not torch.equal(first['decode_head.k.0.weight'], theirs['decode_head.k.0.weight'])


def few_classes(data_root, work_dir, **options) -> Config:
    """Road and car; all others are ignored."""
    cfg = tiny_config(data_root, work_dir, **options)
    cfg.model.decode_head.num_classes = 2
    for loss in ('loss_decode', 'loss_cluster'):
        cfg.model.decode_head[loss].class_weight = None
    for part in ('train', 'val', 'test'):
        dataset = cfg[f'{part}_dataloader'].dataset
        dataset.metainfo = dict(classes=('road', 'car'), palette=[[128, 64, 128], [64, 0, 128]])
        for step in dataset.pipeline:
            if step.type == 'mmpaca.LoadVerifiedSegMap':
                step.ignored_labels = (*range(2, 12),)
    return cfg


def test_fine_tuning_to_other_classes(camvid, trained, tmp_path):
    cfg = few_classes(camvid, tmp_path, load_from=str(trained / 'iter_2.pth'))
    cfg.train_cfg.max_iters = 1
    cfg.optim_wrapper.optimizer.lr = 0.0
    train(cfg)
    ours, theirs = (
        load_from_local(path)['state_dict']
        for path in (tmp_path / 'iter_1.pth', trained / 'iter_2.pth')
    )
    renewed = {key for key in ours if ours[key].shape != theirs[key].shape}
    layers = ('clustering.1', 'conv_seg')
    assert renewed == {f'decode_head.{a}.{b}' for a in layers for b in ('weight', 'bias')}
    kept = ours.keys() - renewed - {key for key in ours if 'running' in key or 'num_b' in key}
    assert all(torch.equal(ours[key], theirs[key]) for key in kept)


def test_a_checkpoint_of_another_head(camvid, trained, tmp_path):
    cfg = tiny_config(camvid, tmp_path, load_from=str(trained / 'iter_2.pth'))
    cfg.model.decode_head.channels = 8
    with pytest.raises(RuntimeError, match=r'does not match EncoderDecoder.*decode_head\.convs'):
        train(cfg)


def test_head_and_dataset_with_other_classes(camvid, tmp_path):
    cfg = tiny_config(camvid, tmp_path)
    cfg.model.decode_head.update(num_classes=10, loss_decode=None, loss_cluster=None)
    says = r'decode_head.num_classes=10, but the dataset of train_dataloader has 11 classes'
    with pytest.raises(ValueError, match=says):
        train(cfg)


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        (dict(in_channels=[8, 8, 16, 32]), r'model.decode_head.in_channels=\[8, 8, 16, 32\] does'),
        (
            dict(loss_decode=dict(type='CrossEntropyLoss', class_weight=[1.0, 2.0])),
            r'model.decode_head.loss_decode.class_weight has 2 values for num_classes=11',
        ),
    ],
)
def test_head_that_does_not_match(camvid, tmp_path, change, says):
    model = tiny_config(camvid, tmp_path).model
    model.decode_head.update(change)
    with pytest.raises(ValueError, match=says):
        _check_decode_heads(MODELS.build(model))


def wrong_label(labels: np.ndarray) -> np.ndarray:
    labels[3, 4] = 77
    return labels


def test_missing_label_maps_are_found_before_training(tmp_path):
    data = write_camvid(tmp_path / 'data')
    (data / 'labels/val/2.png').unlink()
    says = '1 of the 3 label maps of val_dataloader do not exist, first .*labels/val/2.png: check'
    with pytest.raises(SegFileError, match=says):
        train(tiny_config(data, tmp_path / 'run'))


@pytest.mark.parametrize('part', ['train', 'val'])
def test_labels_out_of_range(tmp_path, part):
    """In training an index error, or a device assertion; in validation wrong numbers."""
    data = write_camvid(tmp_path / 'data')
    path = data / f'labels/{part}/1.png'
    Image.fromarray(wrong_label(np.array(Image.open(path)))).save(path)
    cfg = tiny_config(data, tmp_path / 'run')
    del cfg.train_dataloader.dataset.pipeline[2:5]  # no crop leaves the pixel out
    cfg.model.data_preprocessor.size = (HEIGHT, WIDTH)
    cfg.train_dataloader.batch_size = 6
    cfg.train_cfg.update(max_iters=1, val_interval=1)
    says = (
        f'labels/{part}/1.png has labels out of range: 77; valid are 0 to 10 for the 11 classes of '
        'the model, and 255 for pixels without a class'
    )
    with pytest.raises(SegFileError, match=says):
        train(cfg)


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        (lambda labels: labels[:40], 'labels/train/1.png is 64x40, its image .*1.jpg is 64x48'),
        (
            lambda labels: labels[..., None].repeat(3, -1),
            'labels/train/1.png has 3 channels: give one class index per pixel',
        ),
        (
            lambda labels: labels.astype(np.uint16) + 300,
            'labels/train/1.png has the label 311: labels are 0 to 254',
        ),
        (None, 'labels/train/1.png does not exist: check data_prefix.seg_map_path'),
    ],
)
def test_label_maps_that_cannot_be_used(tmp_path, change, says):
    data = write_camvid(tmp_path / 'data')
    path = data / 'labels/train/1.png'
    labels = np.array(Image.open(path))
    labels[0, 0] = 11
    path.unlink()
    if change:
        Image.fromarray(change(labels)).save(path)
    dataset = DATASETS.build(tiny_config(data, tmp_path).train_dataloader.dataset)
    with pytest.raises(SegFileError, match=says):
        dataset[1]


def test_files_that_are_no_images(tmp_path):
    data = write_camvid(tmp_path / 'data')
    path = data / 'images/train/4.jpg'
    path.write_bytes(path.read_bytes()[:-200])
    (data / 'labels/train/2.png').write_bytes(b'no image')
    dataset = DATASETS.build(tiny_config(data, tmp_path).train_dataloader.dataset)
    with pytest.raises(SegFileError, match='images/train/4.jpg: is a truncated JPEG file'):
        dataset[4]
    with pytest.raises(SegFileError, match='label map .*labels/train/2.png is no image file'):
        dataset[2]


def test_label_maps_are_mmsegs(camvid, tmp_path):
    """reduce_zero_label and the selection of classes, beside mmseg's own loading."""
    path = camvid / 'labels/val/0.png'
    for zero, mapping in ((False, None), (True, None), (True, {1: 0, 2: 255}), (False, {3: 5})):
        results = dict(
            seg_map_path=str(path),
            img_path='',
            ori_shape=(HEIGHT, WIDTH),
            reduce_zero_label=zero,
            label_map=mapping,
        )
        expected = TRANSFORMS.build(dict(type='LoadAnnotations')).transform(
            dict(results, seg_fields=[])
        )
        ours = TRANSFORMS.build(dict(type='mmpaca.LoadVerifiedSegMap')).transform(dict(results))
        np.testing.assert_array_equal(ours['gt_seg_map'], expected['gt_seg_map'])
        assert ours['seg_fields'] == expected['seg_fields'] and ours['gt_seg_map'].dtype == np.uint8
    assert TRANSFORMS.build(dict(type='mmpaca.LoadVerifiedSegMap')).transform({'a': 1}) == {'a': 1}
