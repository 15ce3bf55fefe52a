import json
import math
import runpy
import sys

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmpaca.__main__ import main
from mmpaca.analysis import build_backbone, count_cost, parse_backbone, timing
from mmpaca.analysis.model import model_cost
from mmpaca.analysis.timing import peak_memory


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 16)
        self.conv = nn.Conv2d(16, 6, 3, stride=2, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(2, 8, 8, 8) to (2, 4, 8, 8)."""
        x = F.gelu(self.linear(x))
        tokens = x.flatten(1, 2).unsqueeze(1)
        x = F.scaled_dot_product_attention(tokens, tokens, tokens).view(x.shape)
        return self.up(self.conv(x.permute(0, 3, 1, 2)))


def test_macs_are_those_of_the_formulas():
    toy = Toy()
    cost = count_cost(toy, lambda: toy(torch.rand(2, 8, 8, 8)))
    patches, outputs = 2 * 64, 2 * 16
    linear = patches * 8 * 16
    attention = 2 * patches * 64 * 16
    conv = outputs * 9 * 8 * 6
    up = outputs * 6 * 4 * 4  # every input pixel gives 2x2 outputs
    assert cost.macs == cost.macs_by_module[''] == linear + attention + conv + up
    assert cost.macs_by_module['conv'] == conv
    assert cost.params == sum(p.numel() for p in toy.parameters())
    published = count_cost(toy, lambda: toy(torch.rand(2, 8, 8, 8)), published_convention=True)
    assert published.macs == linear + attention + conv + 4 * up


@pytest.mark.parametrize('recomputed', [False, True])
def test_saved_bytes(recomputed):
    """Two linear layers around a GELU: saved are the input of each, and GELU's."""
    first, last = nn.Linear(8, 32), nn.Linear(32, 4)
    model = nn.Sequential(first, last)
    x = torch.rand(10, 8)

    def contract(hidden: torch.Tensor) -> torch.Tensor:
        return last(F.gelu(hidden))

    def run() -> torch.Tensor:
        if recomputed:
            return checkpoint(contract, first(x), use_reentrant=False)
        return contract(first(x))

    hidden, output = 10 * 32 * 4, 10 * 4 * 4
    saved = count_cost(model, run).saved_bytes
    assert saved == output + (1 if recomputed else 2) * hidden


def test_the_channels_are_those_of_the_model(root):
    config = Config.fromfile(root / 'configs/classification/paca-t_8xb128_in1k.py')
    config.model.backbone.arch = 'nano'
    config.model.head.in_channels = 128
    rgb = model_cost(config, (64, 64))
    config.model.backbone.in_channels = 4
    four = model_cost(config, (64, 64))
    # The stem's first convolution: 3 x 3 taps, 32 / 2 outputs, a quarter of the pixels.
    assert four.macs - rgb.macs == 9 * 16 * 32 * 32


def test_what_to_compare_is_named_in_three_ways(root):
    assert parse_backbone('paca-t') == ('paca-t', dict(type='PaCaViT', arch='tiny'))
    assert parse_backbone("mine={'type': 'mmdet.ResNet', 'depth': 18}") == (
        'mine',
        dict(type='mmdet.ResNet', depth=18),
    )
    name, backbone = parse_backbone(str(root / 'configs/mask_rcnn_paca.py'))
    assert name == 'mask_rcnn_paca' and build_backbone(backbone).depths == (3, 3, 10, 3)
    for wrong in ('paca', 'no.py', 'mine={', 'mine=3'):
        with pytest.raises(ValueError, match='paca-t, .* nor a config file'):
            parse_backbone(wrong)


def test_benchmark(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    mine = "mine={'type': 'PaCaViT', 'arch': 'tiny', 'num_clusters': 0}"
    what = ['paca-t', mine, '--shapes', '2x64x96', '--dtypes', 'float32', '--repeats', '2']
    how = ['--warmup', '0', '--out', 'bench.json', '--plot', 'charts', '--device', 'cpu']
    monkeypatch.setattr(timing, '_PAUSE', 0.0)  # for steadier times only
    assert main(['benchmark', *what, *how]) == 0
    rows = json.loads((tmp_path / 'bench.json').read_text())
    assert [(row['model'], row['mode']) for row in rows] == [
        ('paca-t', 'forward'),
        ('mine', 'forward'),
        ('paca-t', 'train'),
        ('mine', 'train'),
    ]
    model = build_backbone(parse_backbone('paca-t')[1])
    cost = count_cost(model, lambda: model(torch.rand(2, 3, 64, 96)))
    for row in rows:
        assert 0 < row['seconds_min'] <= row['seconds'] <= row['seconds_max']
        passes = 1 if row['mode'] == 'forward' else 3
        assert row['fraction_of_peak'] == pytest.approx(
            2 * passes * row['macs'] / row['seconds'] / row['gemm_flops']
        )
        if row['model'] == 'paca-t':
            assert row['macs'] == cost.macs and row['params'] == cost.params
    assert 'of peak' in capsys.readouterr().out
    names = {path.name for path in (tmp_path / 'charts').iterdir()}
    assert {'accuracy_train_2x64x96_float32.png', 'scaling_forward_float32.png'} <= names


def test_two_models_of_one_name_are_refused(root, tmp_path, capsys):
    config = root / 'configs/mask_rcnn_paca.py'
    other = tmp_path / 'mask_rcnn_paca.py'
    other.write_text(f"_base_ = '{config}'\n")
    assert main(['benchmark', str(config), str(other)]) == 1
    assert capsys.readouterr().err == (
        f"error: {config} and {other} would both be 'mask_rcnn_paca' in the table: rename one\n"
    )


@pytest.mark.parametrize('option', ['--shape 224', '--depth 1', '--cfg-options a=1'])
def test_published_figures_take_no_options(capsys, option):
    assert main(['flops', '--published', *option.split()]) == 1
    assert f'{option.split()[0]} cannot be combined with --published' in capsys.readouterr().err


def test_flops_of_a_config_by_name(capsys):
    arguments = ['--cfg-options', 'model.backbone.arch=tiny', '--depth', '1']
    assert main(['flops', 'paca-s_8xb128_in1k', *arguments]) == 0
    printed = capsys.readouterr().out
    assert 'input 224x224: 3.22 GMAC, 12.20 M parameters' in printed
    assert main(['flops', '--published', 'paca-t_8xb128_in1k']) == 0
    assert '1 of 1 within 1.5%' in capsys.readouterr().out
    assert main(['flops', '--published', 'paca-demo_digits']) == 1
    assert 'no figures are published for paca-demo_digits' in capsys.readouterr().err


def test_measurements_ask_the_device_that_they_are_for(monkeypatch):
    asked = []
    for name in ('reset_peak_memory_stats', 'memory_allocated', 'max_memory_allocated'):
        # No GPU here: what each function is asked about.
        monkeypatch.setattr(torch.cuda, name, lambda device=None: asked.append(device) or 0)
    peak_memory('cuda:1', lambda: None)
    assert asked == ['cuda:1'] * 3


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        ('--shapes 64x64', "--shapes '64x64' is invalid"),
        ('--shapes 0x64x64', "--shapes '0x64x64' is invalid"),
        ('--device foo', '--device foo: give cpu'),
        ('nothing', 'config nothing is neither a file nor'),
    ],
)
def test_what_cannot_be_timed_is_refused(capsys, arguments, says):
    assert main(['benchmark', *arguments.split()]) == 1
    assert capsys.readouterr().err.startswith(f'error: {says}')


def test_cost_is_linear_in_the_pixels():
    """Exactly: what does not depend on the pixels (keys and values of clusters) is a constant."""
    model = build_backbone(dict(type='PaCaViT', arch='tiny', num_clusters=100))
    first, second, third = (
        count_cost(model, lambda: model(torch.rand(1, 3, side, side))).macs  # noqa: B023
        for side in (64, 128, 192)
    )
    assert (second - first) * 5 == (third - second) * 3


def test_scaling(root, monkeypatch, capsys, tmp_path):
    script = runpy.run_path(str(root / 'tools/analysis/scaling.py'))
    monkeypatch.chdir(tmp_path)
    arguments = '--models plain-vit --sides 64 128 --repeats 1 --warmup 0 --device cpu'
    monkeypatch.setattr(sys, 'argv', ['scaling.py', *arguments.split()])
    monkeypatch.setattr(timing, '_PAUSE', 0.0)
    script['main']()  # here, where the server of worker processes runs already
    printed = capsys.readouterr().out
    rows = json.loads((tmp_path / 'work_dirs/scaling.json').read_text())
    model = build_backbone(script['MODELS']['plain-vit'](64))
    cost = count_cost(model, lambda: model(torch.rand(1, 3, 64, 64)))
    assert [row['shape'] for row in rows] == [[1, 64, 64], [1, 128, 128]]
    assert rows[0]['macs'] == cost.macs
    exponent = math.log(rows[1]['macs'] / rows[0]['macs']) / math.log(4)
    assert f'{exponent:.3f}' in printed
