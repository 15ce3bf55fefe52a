"""Export every kind of detector that `mmpaca export` covers, with several backbones, and compare it with mmdet.

The models are the small ones of tests/deploy, whose weights are random; height and width are free, except
RTMDet's. Takes minutes for each.

    python tools/dev/check_export.py [NAME ...] [--backbone ConvStages|PaCaViT|ResNet|SwinTransformer]
        [--format onnx|openvino|torch]
"""

import argparse
import copy
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / 'tests' / 'deploy'))

from detectors import CONV, DETECTORS, PACA, RESNET, SWIN, build, detector_config, save
from mmengine.config import Config

from mmpaca.apis.deploy import SUFFIXES, ExportOptions, export

BACKBONES = {backbone['type']: backbone for backbone in (CONV, PACA, RESNET, SWIN)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('names', nargs='*', choices=[[], *DETECTORS], help='default: all')
    parser.add_argument('--backbone', choices=BACKBONES, default='PaCaViT')
    parser.add_argument('--format', choices=SUFFIXES, default='onnx')
    args = parser.parse_args()
    failed = []
    for name in args.names or DETECTORS:
        print(f'--- {name}, {args.backbone}', flush=True)
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            cfg = detector_config(name, BACKBONES[args.backbone])
            config, checkpoint = save(cfg, build(copy.deepcopy(cfg)), Path(folder))
            try:
                out = Path(folder, 'model').with_suffix(SUFFIXES[args.format])
                options = ExportOptions(format=args.format)
                export(Config.fromfile(config), str(checkpoint), out, options)
            except ValueError as error:
                print(f'error: {error}')
                failed.append(name)
        print(f'{time.process_time() - start:.0f} s', flush=True)
    sys.exit(f'failed: {", ".join(failed)}' if failed else 0)


if __name__ == '__main__':
    main()
