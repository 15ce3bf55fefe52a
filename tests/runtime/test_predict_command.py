"""mmpaca-predict, in-process and without PyTorch."""

import json

import numpy as np
import pytest
import tomllib
from commands import ROOT
from mmpaca_runtime.__main__ import main
from PIL import Image

import mmpaca

# Packages of mmpaca's environment that the runtime must not need.
ABSENT = (
    'torch',
    'torchvision',
    'mmengine',
    'mmcv',
    'mmdet',
    'mmpaca',
    'cv2',
    'onnx',
    'pycocotools',
)


@pytest.fixture
def folder(tmp_path):
    """Four images of two sizes, a file that is no image and one that is ignored."""
    folder = tmp_path / 'photos'
    (folder / 'more').mkdir(parents=True)
    for name, height in (('a.png', 20), ('b.jpg', 30), ('c.png', 20), ('more/a.png', 20)):
        Image.fromarray(np.full((height, 24, 3), 255, np.uint8)).save(folder / name)
    (folder / 'broken.png').write_text('no image')
    (folder / 'notes.txt').write_text('no image')
    return folder


def test_folder_glob_and_broken_file(model, folder, tmp_path, capsys):
    out = tmp_path / 'out'
    command = [model, folder, f'{folder}/more/*.png', '--out-dir', out, '--batch-size', 3]
    assert main([str(part) for part in [*command, '--threads', 1]]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith('4 images, 8 detections, ')
    assert printed.err.splitlines()[-1] == f'{folder}/broken.png: not an image'
    assert '5/5 files' in printed.err
    coco = json.loads((out / 'predictions.coco.json').read_text())
    names = [entry['file_name'] for entry in coco['images']]
    assert names == [f'{folder}/{name}' for name in ('a.png', 'b.jpg', 'c.png', 'more/a.png')]
    assert coco['categories'] == [dict(id=1, name='cat'), dict(id=2, name='dog')]
    assert [entry['image_id'] for entry in coco['annotations']] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [entry['id'] for entry in coco['annotations']] == [*range(1, 9)]
    pictures = {path.name for path in (out / 'vis').iterdir()}
    assert pictures == {'a.jpg', 'a_2.jpg', 'b.jpg', 'c.jpg'}


def test_coco_file_can_be_evaluated(model, folder, tmp_path, capsys):
    from pycocotools.coco import COCO

    out = tmp_path / 'found.json'
    assert main([str(model), str(folder / 'a.png'), '--out', str(out), '--no-save-vis']) == 0
    loaded = COCO(out)
    assert loaded.annToMask(loaded.anns[1]).sum() == loaded.anns[1]['area']
    assert sorted(path.name for path in tmp_path.iterdir()) == ['found.json', 'photos']


@pytest.mark.parametrize(
    ('arguments', 'error'),
    [
        (['nothing.onnx', 'a.png'], 'nothing.onnx'),
        (['MODEL', 'nothing/*.png'], "'nothing/*.png': no such file, folder of images"),
        (['MODEL', 'a.png', '--device', 'tpu'], "device 'tpu' is not available"),
    ],
)
def test_errors_are_one_sentence(arguments, error, model, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main([str(model) if text == 'MODEL' else text for text in arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('mmpaca-predict: ') and error in line


def test_videos_name_the_extra(model, folder, monkeypatch, capsys, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, 'av', None)
    (folder / 'a.mp4').write_bytes(b'')
    assert main([str(model), str(folder / 'a.mp4'), '--out-dir', str(tmp_path / 'out')]) == 1
    assert "pip install 'mmpaca-runtime[video]'" in capsys.readouterr().err


def test_without_pytorch(model, folder, python, tmp_path):
    code = f"""
import sys
for name in {ABSENT!r}:
    sys.modules[name] = None  # importing it fails
import mmpaca_runtime
assert 'onnxruntime' not in sys.modules
from mmpaca_runtime.__main__ import main
assert main([{str(model)!r}, {str(folder / 'a.png')!r}, '--out-dir', 'out', '--threads', '1']) == 0
loaded = {{name.partition('.')[0] for name in sys.modules if sys.modules[name]}}
print(sorted(loaded & {{'numpy', 'onnxruntime', 'PIL', *{ABSENT!r}}}))
"""
    printed = python(code, PYTHONPATH=str(ROOT / 'runtime'))
    assert printed.splitlines()[-1] == "['PIL', 'numpy', 'onnxruntime']"
    assert (tmp_path / 'out/vis/a.jpg').is_file()


def test_metadata_of_the_package():
    metadata = tomllib.loads((ROOT / 'runtime/pyproject.toml').read_text())
    names = [text.split('>')[0] for text in metadata['project']['dependencies']]
    assert names == ['numpy', 'onnxruntime', 'pillow']
    import mmpaca_runtime

    assert mmpaca_runtime.__version__ == mmpaca.__version__
