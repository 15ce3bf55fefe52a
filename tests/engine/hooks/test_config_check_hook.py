"""Dataset, evaluator and heads that do not agree stop a run before it begins."""

import pytest


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (
            {'val_dataloader.dataset.ann_file': 'annotations/train.json'},
            ValueError,
            '8 of the 16 images of val_dataloader, first 000010.png, are not in '
            'val_evaluator.ann_file: give val_evaluator.ann_file and val_dataloader.dataset the',
        ),
        (
            {'val_dataloader.dataset.metainfo.classes': ('circle', 'square', 'triangle', 'stars')},
            ValueError,
            r"classes \['stars'\] of val_dataloader are not among those of val_evaluator.ann_file, "
            r"\['circle', 'square', 'triangle', 'star'\]: spell them alike",
        ),
        (
            {'model.roi_head.bbox_head.num_classes': 3},
            AssertionError,
            r'`num_classes` \(3\) in Shared2FCBBoxHead',
        ),
    ],
)
def test_training_stops_before_it_begins(runner, options, error, message):
    training = runner(**options, **{'train_cfg.max_iters': 2})
    with pytest.raises(error, match=message):
        training.train()
    assert training.iter == 0


def test_testing_too(runner):
    options = {
        'test_dataloader.dataset.ann_file': 'annotations/train.json',
        'test_dataloader.dataset.data_prefix.img': 'train/',
    }
    with pytest.raises(ValueError, match='8 of the 16 images of test_dataloader'):
        runner(**options).test()
