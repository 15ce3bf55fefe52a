"""Train one step and predict with one detector of each of mmdet's families, and write the table.

Shows what works on mmcv-lite with the operators that mmpaca serves. Random weights, generated
320x320 images, mmdet's own configs. Rows of other families stay in the file, so that families can be
checked one at a time.
"""

import argparse
import gc
import os
from pathlib import Path

import mmcv
import mmdet
import torch
import yaml
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch.distributed import HashStore

import mmpaca  # noqa: F401
from mmpaca.plugin.operators import compiled_ext

CONFIGS = Path(mmdet.__file__).parent / '.mim/configs'
SHAPE = (3, 320, 320)
PAGE = Path(__file__).resolve().parents[2] / 'docs/stock_detectors.md'
HEADER = """\
# Detectors of mmdet on mmcv-lite

One detector of each of mmdet's families, with mmdet's own config: does it train a step and predict with
the operators that `import mmpaca` serves in place of compiled mmcv? Random weights, generated 320 x 320
images, a CPU, with scikit-image and fairscale, which a few need, but without transformers: detectors that
read text also download a language model. Families that are not listed were not checked. Written by

```bash
python tools/dev/check_stock_detectors.py
```

{summary}

An error that names no package or operator comes from mmdet's own code. Some may be due to the random weights:
trained ones were not tried.

| family | config | training step | prediction |
|---|---|---|---|
{rows}
"""
TASKS = {'Object Detection', 'Instance Segmentation', 'Panoptic Segmentation'}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'families', nargs='*', help="names of mmdet's config folders (default: all)"
    )
    parser.add_argument('--out', type=Path, default=PAGE, help='Markdown page to update')
    return parser.parse_args()


def choose(metafile: Path) -> Path | None:
    """Return the family's config with the smallest backbone that a metafile lists."""
    content = yaml.safe_load(metafile.read_text())
    models = content['Models'] if isinstance(content, dict) else content
    files = [
        metafile.parent / Path(model['Config']).name
        for model in models
        if TASKS & {result['Task'] for result in model.get('Results', [])}
    ]
    small = ('r50', 'r18', 'tiny', '_s_', 't-p4', 'b0', '300', 'd53')
    # Fast R-CNN needs files of proposals.
    files = [f for f in files if f.is_file() and 'fast-rcnn' not in f.name]
    files.sort(key=lambda f: next((i for i, s in enumerate(small) if s in f.name), len(small)))
    return files[0] if files else None


def without_weights(node: object) -> None:
    """Remove what would download weights."""
    for value in node.values() if isinstance(node, dict) else node:
        if isinstance(value, dict | list | tuple):
            without_weights(value)
    if isinstance(node, dict):
        if 'checkpoint' in (node.get('init_cfg') or {}):
            node['init_cfg'] = None
        for key in {'pretrained', 'teacher_ckpt'} & node.keys():
            node[key] = None


def in_short(error: Exception) -> str:
    """Return the error's type and the beginning of its first line, for a cell of the table."""
    line = ' '.join(str(error).strip().partition('\n')[0].split())[:100].replace('|', '/')
    return f'`{type(error).__name__}: {line}`'


def check(file: Path) -> tuple[str, str]:
    """Return what training and prediction did: ``'yes'`` or the error."""
    from mmdet.registry import MODELS
    from mmdet.testing import demo_mm_inputs

    config = Config.fromfile(file)
    init_default_scope('mmdet')
    without_weights(config.model)
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(config.model))
    model.init_weights()
    for name in ('epoch', 'iter'):  # Runner does it
        MessageHub.get_current_instance().update_info(name, 0)
    results = []
    for mode, images in (('loss', 2), ('predict', 1)):  # Guided Anchoring predicts one at a time
        data = demo_mm_inputs(
            images, [SHAPE] * images, with_mask='mask' in str(config.model), with_semantic=True
        )
        try:
            model.train(mode == 'loss')
            processed = model.data_preprocessor(data, mode == 'loss')
            with torch.set_grad_enabled(mode == 'loss'):
                out = model(**processed, mode=mode)
            if mode == 'loss':
                model.parse_losses(out)[0].backward()
            results.append('yes')
        except Exception as error:  # any of 53 detectors may fail in its own way
            results.append(in_short(error))
    return results[0], results[1]


def read_rows(page: Path) -> dict[str, str]:
    """Return the rows of the page by family."""
    if not page.is_file():
        return {}
    lines = [line for line in page.read_text().splitlines() if line.startswith('| ')]
    return {line.split(' | ')[0].removeprefix('| '): line for line in lines[1:]}


def write_page(page: Path, rows: dict[str, str]) -> None:
    """Write the page with the rows in the order of the families."""
    good = sum(row.endswith('| yes | yes |') for row in rows.values())
    versions = f'mmdet {mmdet.__version__}, torch {torch.__version__}, mmcv {mmcv.__version__}'
    summary = f'{good} of {len(rows)} do both ({versions}, without compiled operators).'
    text = HEADER.format(summary=summary, rows='\n'.join(rows[name] for name in sorted(rows)))
    page.write_text(text)


def main() -> None:
    args = parse_args()
    if compiled_ext() is not None:
        raise SystemExit('mmcv has compiled operators here: install mmcv-lite in its place')
    MMLogger.get_instance('mmengine', log_level='ERROR')
    torch.distributed.init_process_group('gloo', store=HashStore(), rank=0, world_size=1)
    page = args.out.absolute()
    rows = read_rows(page)
    os.chdir(CONFIGS.parent)  # a few configs name others by their path from there
    for metafile in sorted(CONFIGS.glob('*/metafile.yml')):
        family = metafile.parent.name
        if args.families and family not in args.families or (file := choose(metafile)) is None:
            continue
        try:
            trained, predicted = check(file)
        except Exception as error:
            trained = predicted = in_short(error)
        rows[family] = f'| {family} | {file.stem} | {trained} | {predicted} |'
        print(rows[family], flush=True)
        write_page(page, rows)
        gc.collect()


if __name__ == '__main__':
    main()
