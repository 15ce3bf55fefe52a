import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS
from torch.utils.data import DataLoader

from mmpaca.datasets.cifar import LocalCIFAR100

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIGS = ('paca-t_cifar100_32', 'paca-t_cifar100_224')


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture
def cifar(tmp_path, monkeypatch) -> dict:
    """Few images in the files of CIFAR-100, with their md5 sums in the class, as pixels."""
    rng, pixels = np.random.RandomState(0), {}
    folder = tmp_path / 'cifar-100-python'
    folder.mkdir()
    lists = {}
    for name, count in (('train', 12), ('test', 6)):
        data = rng.randint(0, 256, (count, 3072), dtype=np.uint8)
        pixels[name] = data.reshape(count, 3, 32, 32)
        content = {
            'filenames': [f'{i}.png' for i in range(count)],
            'batch_label': 'of 1',
            'fine_labels': list(range(count)),
            'coarse_labels': [0] * count,
            'data': data,
        }
        lists[name] = dump(content, folder / name)
    meta = {'fine_label_names': [str(i) for i in range(100)], 'coarse_label_names': ['all']}
    monkeypatch.setattr(LocalCIFAR100, 'train_list', [lists['train']])
    monkeypatch.setattr(LocalCIFAR100, 'test_list', [lists['test']])
    md5 = dump(meta, folder / 'meta')[1]
    monkeypatch.setattr(LocalCIFAR100, 'meta', dict(LocalCIFAR100.meta, md5=md5))
    return dict(root=tmp_path, **pixels)


def dump(content: dict, path: Path) -> list[str]:
    path.write_bytes(pickle.dumps(content, protocol=2))
    return [path.name, hashlib.md5(path.read_bytes()).hexdigest()]


def datasets(config: str, root: Path) -> list:
    cfg = Config.fromfile(ROOT / f'configs/classification/{config}.py')
    parts = cfg.train_dataloader.dataset, cfg.test_dataloader.dataset
    return [DATASETS.build(dict(part, data_root=str(root))) for part in parts]


@pytest.mark.parametrize('config', CONFIGS)
def test_images_and_labels(config, cifar):
    size = 224 if config.endswith('224') else 32
    train, test = datasets(config, cifar['root'])
    assert type(train) is LocalCIFAR100 and (len(train), len(test)) == (12, 6)
    assert len(train.CLASSES) == 100
    batch = next(iter(DataLoader(train, 12, collate_fn=default_collate)))
    assert batch['inputs'].shape == (12, 3, size, size) and batch['inputs'].dtype == torch.uint8
    assert [s.gt_label.item() for s in batch['data_samples']] == list(range(12))
    for i, sample in enumerate(test):
        assert sample['data_samples'].gt_label.item() == i
        image = sample['inputs'].numpy()
        if size == 32:
            assert np.array_equal(image, cifar['test'][i])
        else:  # enlarged, in the same place and order of channels
            small = image.reshape(3, 32, 7, 32, 7)[:, :, 3, :, 3]
            for channel in range(3):
                r = np.corrcoef(small[channel].ravel(), cifar['test'][i, channel].ravel())[0, 1]
                assert r > 0.95


@pytest.mark.parametrize('damage', ['missing', 'corrupt'])
def test_a_damaged_file_is_named(damage, cifar):
    path = cifar['root'] / 'cifar-100-python/test'
    path.unlink() if damage == 'missing' else path.write_bytes(path.read_bytes() + b'.')
    with pytest.raises(FileNotFoundError, match='in .*: cifar-100-python/test missing or with'):
        datasets(CONFIGS[0], cifar['root'])


def test_missing_data_is_one_sentence_and_no_download(monkeypatch, tmp_path):
    def no_network(*args, **kwargs):
        raise AssertionError('tried to download')

    monkeypatch.setattr('mmpretrain.datasets.cifar.download_and_extract_archive', no_network)
    with pytest.raises(FileNotFoundError) as error:
        datasets(CONFIGS[0], tmp_path / 'nowhere')
    sentence = str(error.value)
    assert f'tar -xzf cifar-100-python.tar.gz -C {tmp_path}/nowhere' in sentence
    assert 'https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz' in sentence
    assert '\n' not in sentence


def test_mmpaca_does_not_import_mmpretrain(python):
    printed = python("import sys, mmpaca; print('mmpretrain' in sys.modules)")
    assert printed.splitlines()[-1] == 'False'
