"""Train a detector with several kinds of clusters and compare AP and what the clusters follow.

    tools/analysis/compare_clusters.py configs/real/mask-rcnn_paca-micro_nuclei.py --iters 400

Variants: fewer and more clusters; a temperature of the softmax that makes Z; and terms that are added
to the loss, means over the blocks that compute Z (M clusters, N patches, rows of Z sum to one):

    entropy      entropy of a row, of log N: clusters of fewer patches
    diversity    cosine of two rows, mean over pairs: clusters that do not overlap
    information  1 - mutual information of cluster and patch, of log M: both at once

Every variant trains from random weights for --iters iterations and is validated with the config's
metrics and ClusterAlignmentMetric. Writes clusters.md into --out, also prints it; finished runs are
kept, so that several processes may share the --variants.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner
from torch import Tensor, nn

from mmpaca.analysis.budget import TrainingBudget, train_once
from mmpaca.analysis.zoo import build_backbone
from mmpaca.apis.configs import find_config
from mmpaca.checkpoint.saving import write_atomically
from mmpaca.commands.options import at_least
from mmpaca.commands.reporting import report
from mmpaca.engine.hooks.cluster_information_hook import (
    ClusterInformationHook,
    entropy,
    information,
)
from mmpaca.models import PatchToClusterAttention


def breadth(z: Tensor) -> Tensor:
    """Mean entropy of the rows of Z (B, M, N), relative to log N."""
    return entropy(z).mean() / math.log(z.shape[-1])


def diversity(z: Tensor) -> Tensor:
    """Mean cosine of two different rows of Z (B, M, N)."""
    rows = nn.functional.normalize(z, dim=-1)
    total = rows.sum(1).square().sum(-1)  # of all pairs, each row with itself included
    m = z.shape[1]
    return ((total - m) / (m * (m - 1))).mean()


TERMS: dict[str, Callable[[Tensor], Tensor]] = dict(
    entropy=breadth, diversity=diversity, information=lambda z: 1 - information(z)
)
#: Clusters of a stage that has some, temperature, term and its weight.
VARIANTS: dict[str, dict[str, Any]] = {
    '49 clusters': {},
    '16 clusters': dict(clusters=16),
    '100 clusters': dict(clusters=100),
    'temperature 0.25': dict(temperature=0.25),
    'temperature 4': dict(temperature=4.0),
    'entropy 0.1': dict(term='entropy', weight=0.1),
    'diversity 0.1': dict(term='diversity', weight=0.1),
    'information 0.1': dict(term='information', weight=0.1),
    'information 1': dict(term='information', weight=1.0),
}


class ClusterTerm(ClusterInformationHook):
    """Divide the logits of Z by a temperature and add a term to the loss.

    Args:
        temperature: of the softmax.
        term: key of ``TERMS``.
        weight: of the term.
    """

    def __init__(
        self, temperature: float = 1.0, term: str = 'information', weight: float = 0.0
    ) -> None:
        super().__init__(weight)
        self.temperature, self.term = temperature, term

    def before_run(self, runner: Runner) -> None:
        """Change the temperature, of training and validation."""
        for module in runner.model.modules():
            if isinstance(module, PatchToClusterAttention) and module.clustering is not None:
                module.clustering.register_forward_hook(lambda *call: call[2] / self.temperature)

    def penalty(self, assignment: Tensor) -> Tensor:
        return TERMS[self.term](assignment)


def run(args: argparse.Namespace, name: str, seed: int) -> dict:
    """Train one variant, unless its result is there."""
    variant = dict(VARIANTS[name])
    cfg = Config.fromfile(find_config(args.config))
    cfg.custom_hooks = []  # a term of the config's own
    if 'clusters' in variant:
        before = build_backbone(cfg.model.backbone).num_clusters
        cfg.model.backbone.num_clusters = tuple(m and variant['clusters'] for m in before)
        variant.pop('clusters')
    metrics = cfg.val_evaluator if isinstance(cfg.val_evaluator, list) else [cfg.val_evaluator]
    aligned = dict(type='mmpaca.ClusterAlignmentMetric', ann_file=metrics[0]['ann_file'])
    cfg.val_evaluator = [metrics[0], aligned]
    cfg.merge_from_dict(args.cfg_options or {})
    cfg.randomness.seed = seed
    cfg.work_dir = str(args.out / f'{name.replace(" ", "_")}_seed{seed}')
    settings = dict(config=args.config, iters=args.iters, name=name, seed=seed)
    return train_once(
        cfg, TrainingBudget(iters=args.iters, validations=1), settings, [ClusterTerm(**variant)]
    )


def table(results: list[dict]) -> str:
    """Return a Markdown table: the best IoU of an instance and any cluster, and bits, by stage."""
    last = results[0]['points'][-1]
    stages = [k for k in range(1, 5) if f'clusters/stage{k}_iou' in last]
    heads = [f'IoU {k} | bits {k} | in use {k}' for k in stages]
    lines = [
        f'| variant | seed | box AP | mask AP | {" | ".join(heads)} |',
        '|---' * (4 + 3 * len(stages)) + '|',
    ]
    for result in results:
        found = result['points'][-1]
        values = [f'{100 * found[f"coco/{kind}_mAP"]:.1f}' for kind in ('bbox', 'segm')]
        for k in stages:
            for what, digits in (('iou', 3), ('mi_bits', 3), ('in_use', 1)):
                values.append(f'{found[f"clusters/stage{k}_{what}"]:.{digits}f}')
        about = result['settings']
        lines.append(f'| {about["name"]} | {about["seed"]} | {" | ".join(values)} |')
    return '\n'.join(lines) + '\n'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='of a detector with masks')
    parser.add_argument('--iters', type=at_least(1), required=True, help='iterations of each run')
    parser.add_argument('--variants', nargs='+', choices=VARIANTS, default=[*VARIANTS])
    parser.add_argument('--seeds', nargs='+', type=at_least(0), default=[0])
    parser.add_argument('--threads', type=at_least(1), help="CPU threads (default: PyTorch's)")
    parser.add_argument('--out', type=Path, default=Path('work_dirs/clusters'))
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='override entries of the config'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    for seed in args.seeds:
        for name in args.variants:
            run(args, name, seed)
    finished = [json.loads(path.read_text()) for path in args.out.glob('*/result.json')]
    order = [*VARIANTS]
    finished.sort(key=lambda r: (order.index(r['settings']['name']), r['settings']['seed']))
    write_atomically(args.out / 'clusters.md', table(finished).encode())
    print(table(finished))


if __name__ == '__main__':
    sys.exit(report(main, errors=(OSError, ImportError)))
