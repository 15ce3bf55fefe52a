"""Train detectors that differ in their backbone, with the same heads, recipe and budget, and compare them.

Trains the config, from random weights, with PaCa-ViT and its peers: as long as --minutes or for --iters
iterations each, with every learning rate of --lrs; the best one is repeated with the other --seeds. The
learning rate follows the budget, validation takes none of it. Writes backbones.json, backbones.png (AP
against minutes) and the table backbones.md. Called again, it keeps finished runs. Run it on a machine
that does nothing else; for one process on each core, give every one some --backbones, the same --out and
--threads 1.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from mmengine.config import Config, ConfigDict, DictAction

from mmpaca.analysis.budget import TrainingBudget, train_once
from mmpaca.analysis.model import model_cost
from mmpaca.analysis.zoo import build_backbone
from mmpaca.apis.configs import find_config
from mmpaca.checkpoint.saving import write_atomically
from mmpaca.commands.options import at_least
from mmpaca.commands.reporting import report

_RESNET = dict(type='mmdet.ResNet', norm_cfg=dict(type='BN'), norm_eval=False, frozen_stages=-1)
#: Swin's widths double from stage to stage: 40 to 320 come nearest to the 48 to 224 of PaCa.
BACKBONES = {
    'paca-micro': dict(type='PaCaViT', arch='micro', drop_path_rate=0.0),
    'paca-micro-plain': dict(
        type='PaCaViT', arch='micro', num_clusters=(0, 0, 0, 0), drop_path_rate=0.0
    ),
    'resnet-18': dict(_RESNET, depth=18),
    'resnet-50': dict(_RESNET, depth=50),
    'swin-micro': dict(
        type='mmdet.SwinTransformer', embed_dims=40, depths=(2, 2, 3, 2), num_heads=(2, 4, 8, 16),
        drop_path_rate=0.0, convert_weights=False,
    ),
    'pvtv2-b0': dict(
        type='mmdet.PyramidVisionTransformerV2', embed_dims=32, num_layers=(2, 2, 2, 2),
        drop_path_rate=0.0,
    ),
    'convnext-atto': dict(
        type='mmpretrain.ConvNeXt', arch='atto', out_indices=(0, 1, 2, 3), drop_path_rate=0.0,
        gap_before_final_norm=False,
    ),
}  # fmt: skip
VALIDATIONS = 4
SHAPE = (320, 320)  # of the image whose multiply-accumulates are counted


def configure(args: argparse.Namespace, name: str, lr: float, seed: int) -> Config:
    """Return the config of one run."""
    cfg = Config.fromfile(find_config(args.config))
    backbone = BACKBONES[name]
    with torch.no_grad():
        maps = build_backbone(backbone)(torch.zeros(1, 3, 64, 64))
    cfg.model.backbone = ConfigDict(backbone)
    cfg.custom_hooks = []  # those of the config are for PaCa-ViT
    cfg.model.neck.in_channels = [one.shape[1] for one in maps]
    cfg.optim_wrapper.optimizer.lr = lr
    cfg.merge_from_dict(args.cfg_options or {})
    cfg.randomness.seed = seed
    cfg.work_dir = str(args.out / f'{name}_lr{lr:g}_seed{seed}')
    return cfg


def run(args: argparse.Namespace, name: str, lr: float, seed: int) -> dict:
    """Train one model, unless its result is there."""
    cfg = configure(args, name, lr, seed)
    cost = model_cost(cfg, SHAPE)
    seconds = args.minutes and 60 * args.minutes
    settings = dict(
        config=args.config, minutes=args.minutes, iters=args.iters, name=name, lr=lr, seed=seed,
        params=cost.params, macs=cost.macs, threads=torch.get_num_threads(),
    )  # fmt: skip
    return flat(train_once(cfg, TrainingBudget(seconds, args.iters, VALIDATIONS), settings))


def flat(result: dict) -> dict:
    """Settings and points of a result in one dict."""
    return {**result['settings'], 'points': result['points']}


def metric_of(result: dict) -> str:
    """Name of the AP that decides: of masks if there are any."""
    masks = any('coco/segm_mAP' in point for point in result['points'])
    return 'coco/segm_mAP' if masks else 'coco/bbox_mAP'


def kind_of(results: list[dict]) -> str:
    """What AP is of."""
    return 'mask' if any('segm' in metric_of(result) for result in results) else 'box'


def ap(result: dict, index: int = -1, suffix: str = '') -> float:
    """AP of a validation, in percent. CocoMetric has none where nothing was detected: 0."""
    return 100 * result['points'][index].get(metric_of(result) + suffix, 0)


def best_runs(results: list[dict]) -> dict[str, list[dict]]:
    """Runs of each backbone with its best learning rate, by seed; the first seed decides."""
    best = {}
    for name in dict.fromkeys(result['name'] for result in results):
        own = [result for result in results if result['name'] == name]
        first = min(result['seed'] for result in own)
        lr = max((result for result in own if result['seed'] == first), key=ap)['lr']
        best[name] = [result for result in own if result['lr'] == lr]
    return dict(sorted(best.items(), key=lambda item: -statistics.mean(map(ap, item[1]))))


def table(results: list[dict]) -> str:
    """Return a Markdown table, best first."""
    kind = kind_of(results)
    lines = [
        f'| backbone | {kind} AP (each seed) | AP50 | learning rate (others) | params (M) | GMAC '
        '| s/iteration | iterations |',
        '|---|---|---|---|---|---|---|---|',
    ]
    for name, runs in best_runs(results).items():
        last, first = runs[0]['points'][-1], runs[0]
        others = [r for r in results if r['name'] == name and r['seed'] == first['seed']]
        tried = ', '.join(f'{r["lr"]:g}: {ap(r):.1f}' for r in others if r['lr'] != first['lr'])
        rates = f'{first["lr"]:g}' + (f' ({tried})' if tried else '')
        fifty = statistics.mean(ap(r, suffix='_50') for r in runs)
        lines.append(
            f'| {name} | {statistics.mean(map(ap, runs)):.1f} '
            f'({", ".join(f"{ap(r):.1f}" for r in runs)}) | {fifty:.1f} '
            f'| {rates} | {first["params"] / 1e6:.1f} | {first["macs"] / 1e9:.2f} '
            f'| {last["seconds"] / last["iterations"]:.2f} | {last["iterations"]} |'
        )
    return '\n'.join(lines) + '\n'


def plot(results: list[dict], path: Path) -> None:
    """Plot AP against minutes of training, the mean of the seeds."""
    figure = Figure(figsize=(7, 4.5), layout='constrained')
    axes = figure.subplots()
    for name, runs in best_runs(results).items():
        validations = range(len(runs[0]['points']))
        minutes = [
            statistics.mean(r['points'][k]['seconds'] for r in runs) / 60 for k in validations
        ]
        values = [statistics.mean(ap(r, k) for r in runs) for k in validations]
        width = 3 if name.startswith('paca') else 1.5
        axes.plot(minutes, values, 'o-', label=name, linewidth=width)
    kind = kind_of(results)
    axes.set(xlabel='minutes of training', ylabel=f'{kind} AP', xlim=(0, None), ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='e.g. configs/real/mask-rcnn_paca-micro_nuclei.py')
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument('--minutes', type=float, help='training time of each run')
    budget.add_argument('--iters', type=at_least(1), help='iterations of each run')
    parser.add_argument('--backbones', nargs='+', choices=BACKBONES, default=[*BACKBONES])
    parser.add_argument('--lrs', nargs='+', type=float, default=[5e-4, 1.5e-3, 4e-3])
    parser.add_argument('--seeds', nargs='+', type=at_least(0), default=[0, 1])
    parser.add_argument('--threads', type=at_least(1), help="CPU threads (default: PyTorch's)")
    parser.add_argument('--out', type=Path, default=Path('work_dirs/backbones'))
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='override entries of all configs'
    )
    args = parser.parse_args()
    if args.minutes is not None and args.minutes <= 0:
        parser.error(f'--minutes {args.minutes:g} is not positive')
    return args


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    first, *others = args.seeds
    for name in args.backbones:
        tried = [run(args, name, lr, first) for lr in args.lrs]
        for seed in others:
            run(args, name, max(tried, key=ap)['lr'], seed)
    finished = sorted(args.out.glob('*/result.json'))  # including those of other calls
    results = [flat(json.loads(path.read_text())) for path in finished]
    write_atomically(args.out / 'backbones.json', json.dumps(results, indent=1).encode())
    write_atomically(args.out / 'backbones.md', table(results).encode())
    plot(results, args.out / 'backbones.png')
    print(table(results))
    print(f'wrote {args.out}/backbones.json, backbones.md and backbones.png')


if __name__ == '__main__':
    sys.exit(report(main, errors=(OSError, ImportError)))
