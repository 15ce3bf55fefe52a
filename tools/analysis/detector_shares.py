"""Time the parts of entire detectors: what a faster backbone can save.

    tools/analysis/detector_shares.py [CONFIG ...] [--backbones paca-t swin-t resnet-50]

Random weights and generated images. Each row is a median in milliseconds; the parts of a row add up
to the step. Detectors take turns. A prediction finds objects everywhere: NMS gets as many boxes as
the limits of the config let through, and 100 masks are pasted. `data` loads and transforms an image of
the config's training or test pipeline; dataloader workers do that beside the GPU, and beside the CPU
if cores are left. Nothing else should run on the machine.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

import mmpaca.plugin
from mmpaca.analysis.zoo import PEERS, build_backbone
from mmpaca.apis.configs import find_config
from mmpaca.apis.devices import find_device
from mmpaca.datasets import CLASSES, write_shapes

CONFIGS = ('retinanet_paca-t_1x_coco', 'mask-rcnn_paca-t_1x_coco')
BACKBONES = ('paca-t', 'swin-t', 'resnet-50')
OWN = 'config'  # the backbone of the config
# Name of the part by the module's method, in mmdet's one- and two-stage detectors.
PARTS = {
    'data_preprocessor.forward': 'normalisation',
    'backbone.forward': 'backbone',
    'neck.forward': 'neck',
    'bbox_roi_extractor.forward': 'RoI operators',
    'mask_roi_extractor.forward': 'RoI operators',
    **{f'{head}.forward': 'heads' for head in ('bbox_head', 'rpn_head', 'mask_head')},
    **{f'{head}.loss_by_feat': 'losses' for head in ('bbox_head', 'rpn_head')},
    **{f'{head}.loss_and_target': 'losses' for head in ('bbox_head', 'mask_head')},
    **{f'{h}.predict_by_feat': 'post-processing' for h in ('bbox_head', 'rpn_head', 'mask_head')},
}
BACKWARD = ('backward of heads', 'backward of neck', 'backward of backbone')


class Sections:
    """Seconds by part; a part inside another one does not count for that one."""

    def __init__(self, device: str) -> None:
        self.cuda = torch.device(device).type == 'cuda'
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    def switch(self) -> None:
        """Add the time since the last switch to the innermost open part."""
        if self.cuda:
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.switch()
        self._open.append(name)
        try:
            yield
        finally:
            self.switch()
            self._open.pop()

    def replace(self, name: str) -> None:
        """End the innermost part and begin another one in its place."""
        self.switch()
        self._open[-1] = name

    def timed(self, name: str, function: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return call


def instrument(model: nn.Module, sections: Sections) -> None:
    """Time the methods of :data:`PARTS`, and the backward passes of neck and backbone.

    Autograd runs what was recorded last first: all of the heads, then the neck, then the backbone. A
    hook of a map runs just before the operation that made it, so the first one begins the part.
    """
    for path, module in model.named_modules():
        for key, part in PARTS.items():
            owner, method = key.split('.')
            if path.rpartition('.')[2] == owner and hasattr(module, method):
                setattr(module, method, sections.timed(part, getattr(module, method)))

    def mark(name: str) -> Callable:
        def hook(module: nn.Module, args: Any, maps: tuple[Tensor, ...]) -> None:
            for x in maps:
                if x.requires_grad:
                    x.register_hook(lambda gradient: sections.replace(name))

        return hook

    model.neck.register_forward_hook(mark(BACKWARD[1]))
    model.backbone.register_forward_hook(mark(BACKWARD[2]))


class Detector:
    """A detector to time.

    Args:
        config: name or path of a config with a neck.
        backbone: a key of :data:`mmpaca.analysis.zoo.PEERS`, or :data:`OWN`.
        size: height and width of the images.
        device: device of the model.
        data: folder of generated shapes.
    """

    def __init__(
        self, config: str, backbone: str, size: tuple[int, int], device: str, data: Path
    ) -> None:
        from mmdet.registry import DATASETS, MODELS
        from mmdet.testing import demo_mm_inputs

        cfg = Config.fromfile(find_config(config))
        if backbone != OWN:
            peer = build_backbone(PEERS[backbone][0])
            peer.eval()  # mmdet's Swin returns None
            with torch.no_grad():
                maps = peer(torch.zeros(1, 3, 64, 64))
            cfg.model.backbone = PEERS[backbone][0]
            cfg.model.neck.in_channels = [x.shape[1] for x in maps]
        cfg.model.backbone.pop('init_cfg', None)
        self.name = f'{Path(config).stem.partition("_")[0]}, {backbone}'
        self.device, self.sections = device, Sections(device)
        with DefaultScope.overwrite_default_scope('mmdet'):
            self.model: Any = MODELS.build(cfg.model)
            self.datasets = {}
            for mode, part in (('train', 'train'), ('predict', 'val')):
                dataset = cfg[f'{part}_dataloader'].dataset
                found = dict(data_root=f'{data}/', ann_file=f'annotations/{part}.json')
                dataset.update(
                    found, data_prefix=dict(img=f'{part}/'), metainfo=dict(classes=CLASSES)
                )
                self.datasets[mode] = DATASETS.build(dataset)
        find_objects_everywhere(self.model)
        self.model.to(device)
        instrument(self.model, self.sections)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        has_masks = getattr(self.model, 'with_mask', False)
        self.inputs = demo_mm_inputs(
            1, [(3, *size)], num_items=[8], num_classes=4, with_mask=has_masks, device=device
        )

    def run(self, mode: str) -> dict[str, float]:
        """Time a step; return seconds by part."""
        sections = self.sections
        sections.seconds.clear()
        with sections.part('data'):
            self.datasets[mode][0]
        self.model.train(mode == 'train')
        with sections.part('other'):
            data = self.model.data_preprocessor(self.inputs, mode == 'train')
            if mode == 'predict':
                with torch.no_grad():
                    self.model(**data, mode='predict')
                return dict(sections.seconds)
            loss, _ = self.model.parse_losses(self.model(**data, mode='loss'))
            with sections.part(BACKWARD[0]):
                loss.backward()
            with sections.part('optimizer'):
                self.optimizer.step()
                self.optimizer.zero_grad()
        return dict(sections.seconds)


@torch.no_grad()
def find_objects_everywhere(model: Any) -> None:
    """Let every proposal be one of the first class, and every anchor of a one-stage head count."""
    if getattr(model, 'with_roi_head', False):
        model.roi_head.bbox_head.fc_cls.bias[0] += 3
    else:
        model.bbox_head.test_cfg.score_thr = 0.0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', nargs='*', default=CONFIGS, metavar='CONFIG')
    parser.add_argument('--backbones', nargs='+', choices=(*PEERS, OWN), default=BACKBONES)
    parser.add_argument('--size', nargs=2, type=int, default=(800, 1344), metavar=('H', 'W'))
    parser.add_argument('--device', help='e.g. cpu or cuda:1 (default: a GPU if there is one)')
    parser.add_argument('--repeats', type=int, default=5, help='timed steps; medians count')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/detector_shares.json'))
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    mmpaca.plugin.install()
    device, times = find_device(args.device), {}
    with tempfile.TemporaryDirectory() as name:
        data = write_shapes(Path(name), 1, 1, image_size=max(64, min(args.size)))
        detectors = [
            Detector(config, backbone, tuple(args.size), device, data)
            for config in args.configs
            for backbone in args.backbones
        ]
        for mode in ('predict', 'train'):
            runs: dict[str, list[dict]] = {detector.name: [] for detector in detectors}
            for i in range(args.repeats + 1):
                for detector in detectors:
                    seconds = detector.run(mode)
                    if i:  # the first one warms up
                        runs[detector.name].append(seconds)
            times[mode] = runs
            print_table(mode, runs)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(times, indent=1))
    print(f'\nwrote {args.out}')


def print_table(mode: str, runs: dict[str, list[dict]]) -> None:
    """Print the medians of each part, in milliseconds, and the step without data."""
    parts = list(dict.fromkeys(part for steps in runs.values() for step in steps for part in step))
    print(f'\n| {mode} | step, ms | {" | ".join(parts)} |')
    print('|---' * (len(parts) + 2) + '|')
    for name, steps in runs.items():
        step = statistics.median(sum(s.values()) - s['data'] for s in steps)
        cells = [f'{statistics.median(s.get(p, 0.0) for s in steps) * 1e3:.0f}' for p in parts]
        print(f'| {name} | {step * 1e3:.0f} | {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
    main()
