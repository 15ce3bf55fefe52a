"""Use the installed mmpaca as a user does, in the current, empty folder.

What check_install.sh runs in each environment. Every check is tried; the exit status is 1 if one
of them failed.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path

BIN = Path(sys.executable).parent
DETECTOR = 'mask-rcnn_paca-t_1x_coco'
CLASSIFIER = 'paca-t_8xb128_in1k'
DEMO = 'mask-rcnn_paca-demo_shapes.py'
OPTIONS = ('train_dataloader.batch_size=2', 'val_dataloader.batch_size=2')
TRAIN = ('train_cfg.max_iters=2', 'train_cfg.val_interval=2')


def run(*command: object) -> str:
    """Run a command; return what it printed, or raise with the end of it."""
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    if done.returncode:
        raise RuntimeError(f'{" ".join(map(str, command))}\n{done.stdout[-3000:]}')
    return done.stdout


def mmpaca_version() -> str:
    """Version of the installed distribution."""
    return importlib.metadata.version('mmpaca')


def files(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """Content and executable bit by name, without byte code."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), os.access(path, os.X_OK))
        for path in folder.rglob('*')
        if path.is_file() and path.suffix != '.pyc'
    }


class Checks:
    """Its methods are the checks, in the order in which they need each other.

    Args:
        kind: ``'wheel'`` or ``'editable'``.
        source: tree that was installed.
    """

    def __init__(self, kind: str, source: Path) -> None:
        import mmpaca

        self.source = source
        self.package = Path(mmpaca.__file__).parent
        self.mim = self.package / '.mim'
        assert self.package.is_relative_to(source) == (kind == 'editable'), self.package
        assert mmpaca.__version__ == mmpaca_version()

    def mim_folder_is_complete(self) -> None:
        for name in ('configs', 'tools'):
            assert files(self.mim / name) == files(self.source / name), name
        index = 'model-index.yml'
        assert (self.mim / index).read_bytes() == (self.source / index).read_bytes()

    def forward(self) -> None:
        import torch

        from mmpaca.models import PaCaViT

        with torch.no_grad():
            maps = PaCaViT('tiny').eval()(torch.zeros(1, 3, 64, 96))
        assert [m.shape[1:] for m in maps][-1] == (384, 2, 3), [m.shape for m in maps]

    def base_of_a_config(self) -> None:
        from mmengine.config import Config

        Path('mine.py').write_text("_base_ = 'mmpaca::mask_rcnn_paca.py'\n")
        assert Config.fromfile('mine.py').model.backbone.type == 'PaCaViT'

    def hub(self) -> None:
        from mmengine.hub import get_config

        cfg = get_config(f'mmpaca::paca_vit/{DETECTOR}.py', pretrained=True)
        assert cfg.model.backbone.arch == 'tiny' and cfg.model_path.endswith('.pth')

    def doctor(self) -> None:
        run(BIN / 'mmpaca', 'doctor')

    def command_starts(self) -> None:
        assert 'predict' in run(BIN / 'mmpaca', '--help')
        assert mmpaca_version() in run(BIN / 'mmpaca', '--version')
        assert DETECTOR in run(BIN / 'mmpaca', 'configs', 'mask-rcnn')
        assert 'mmpaca' in run(BIN / 'mmpaca', '--print-completion', 'bash')

    def mim_run(self) -> None:
        run(
            BIN / 'mim',
            'run',
            'mmpaca',
            'make_shapes',
            'data/shapes',
            '--num-train=4',
            '--num-val=4',
        )

    def mim_train(self) -> None:
        args = ('--gpus=0', '--work-dir=out', '--cfg-options', *TRAIN, *OPTIONS)
        assert 'coco/segm_mAP' in run(BIN / 'mim', 'train', 'mmpaca', DEMO, *args)

    def mim_test(self) -> None:
        args = ('--checkpoint=out/iter_2.pth', '--gpus=0', '--work-dir=out')
        assert 'coco/segm_mAP' in run(BIN / 'mim', 'test', 'mmpaca', DEMO, *args)

    def command_trains(self) -> None:
        command = (BIN / 'mmpaca', 'train', DEMO)
        run(*command, '--work-dir=train', '--cfg-options', *TRAIN, *OPTIONS)
        assert 'coco/segm_mAP' in run(
            *(BIN / 'mmpaca', 'test', DEMO, 'train/iter_2.pth', '--work-dir=train'),
            *('--cfg-options', 'test_dataloader.batch_size=2'),
        )

    def command_fine_tunes(self) -> None:
        """Two classes from the detector of four, with nothing else in the config."""
        Path('finetune.py').write_text(
            f"_base_ = 'mmpaca::demo/{DEMO}'\n"
            "classes = ('circle', 'square')\n"
            'model = dict(roi_head=dict(bbox_head=dict(num_classes=2), '
            'mask_head=dict(num_classes=2)))\n'
            'train_dataloader = dict(dataset=dict(metainfo=dict(classes=classes)))\n'
            'val_dataloader = dict(dataset=dict(metainfo=dict(classes=classes)))\n'
            'test_dataloader = val_dataloader\n'
            "load_from = 'train/iter_2.pth'\n"
        )
        command = (BIN / 'mmpaca', 'train', 'finetune.py')
        printed = run(*command, '--work-dir=finetune', '--cfg-options', *TRAIN, *OPTIONS)
        assert (
            'Re-initialised: roi_head.bbox_head.fc_cls' in printed
            and Path('finetune/iter_2.pth').is_file()
        )

    def command_predicts(self) -> None:
        images = sorted(Path('data/shapes/val').glob('*.png'))[:2]
        model = (DEMO, 'train/iter_2.pth')
        run(BIN / 'mmpaca', 'predict', *model, *images, '--device=cpu', '--out-dir=outputs')
        assert {p.stem for p in Path('outputs/vis').iterdir()} == {i.stem for i in images}
        coco = json.loads(Path('outputs/predictions.coco.json').read_text())
        assert [Path(image['file_name']).name for image in coco['images']] == [
            image.name for image in images
        ]

    def command_draws_clusters(self) -> None:
        image = Path('data/shapes/val').resolve() / '000001.png'
        model = (DEMO, 'train/iter_2.pth')
        run(BIN / 'mmpaca', 'clusters', *model, image, '--device=cpu', '--out-dir=clusters')
        assert list(Path('clusters').rglob('*.html'))

    def command_exports(self) -> None:
        model = (DEMO, 'train/iter_2.pth')
        run(BIN / 'mmpaca', 'export', *model, 'exported', '--backbone', '--shape', 64, 96)
        assert list(Path('exported').glob('*.onnx'))
        run(BIN / 'mmpaca', 'export', *model, 'model.onnx')
        assert Path('model.onnx').is_file()

    def scripts_of_the_package(self) -> None:
        """Two processes through dist_train.sh; a config by its path in the package."""
        command = (self.mim / 'tools/dist_train.sh', self.mim / 'configs/demo' / DEMO, 2)
        run(*command, '--work-dir=dist', '--cfg-options', *TRAIN, *OPTIONS)
        assert Path('dist/iter_2.pth').is_file()

    def mim_download(self) -> None:
        """All but the download itself: mim takes a file that is there already."""
        from mmengine.hub import get_config

        weights = get_config(f'mmpaca::paca_vit/{DETECTOR}.py', pretrained=True).model_path
        Path('hub/checkpoints').mkdir(parents=True)
        self._save_random_weights(Path('hub/checkpoints') / Path(weights).name)
        run(BIN / 'mim', 'download', 'mmpaca', '--config', DETECTOR, '--dest', 'hub/checkpoints')
        assert "type='PaCaViT'" in Path(f'hub/checkpoints/{DETECTOR}.py').read_text()

    def detector_by_name(self) -> None:
        """With the weights that the metafile names, from the cache of downloads."""
        import numpy as np
        import torch
        from mmdet.apis import DetInferencer

        torch.hub.set_dir('hub')
        inferencer = DetInferencer(DETECTOR, device='cpu', show_progress=False)
        result = inferencer(np.zeros((64, 96, 3), np.uint8), no_save_vis=True)
        assert {'bboxes', 'labels', 'scores', 'masks'} == set(result['predictions'][0])

    def classifier_by_name(self) -> None:
        from mmpretrain import get_model

        assert type(get_model(CLASSIFIER).backbone).__name__ == 'PaCaViT'

    @staticmethod
    def _save_random_weights(path: Path) -> None:
        import torch
        from mmdet.registry import MODELS
        from mmengine.hub import get_config
        from mmengine.registry import DefaultScope

        cfg = get_config(f'mmpaca::paca_vit/{DETECTOR}.py')
        with DefaultScope.overwrite_default_scope('mmdet'):
            torch.save({'state_dict': MODELS.build(cfg.model).state_dict()}, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('kind', choices=('wheel', 'editable'), help='what was installed')
    parser.add_argument('source', type=Path, help='tree that was installed')
    args = parser.parse_args()
    checks = Checks(args.kind, args.source)
    status = 0
    for name, check in vars(Checks).items():
        if name.startswith('_'):
            continue
        start, verdict = time.time(), 'ok'
        try:
            check(checks)
        except Exception:
            verdict, status = 'FAILED', 1
            traceback.print_exc()
        print(f'{verdict:6}  {args.kind}: {name} ({time.time() - start:.0f} s)', flush=True)
    return status


if __name__ == '__main__':
    sys.exit(main())
