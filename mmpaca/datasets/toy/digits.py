"""Toy classification dataset: scikit-learn's 1,797 scanned digits of 8x8 pixels as files."""

from pathlib import Path

import mmcv
import numpy as np


def write_digits(out_dir: str | Path) -> dict[str, int]:
    """Write ``{train,test}/{0..9}/INDEX.png``, a folder per class, as CustomDataset reads it.

    Three quarters are for training. The split is random, fixed and stratified by class; scans of
    one writer may be in both parts.

    Args:
        out_dir: output folder, created if needed.

    Returns:
        Number of images in each part.

    Raises:
        ImportError: scikit-learn is not installed.
        OSError: a file cannot be written.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ModuleNotFoundError:
        raise ImportError('the digits need scikit-learn: pip install scikit-learn') from None
    images, labels = load_digits().images, load_digits().target
    images = np.round(images * (255 / 16)).astype(np.uint8)  # scanned as counts from 0 to 16
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.25, random_state=0, stratify=labels
    )
    for part, indices in (('train', train), ('test', test)):
        for index in indices:
            folder = Path(out_dir, part, str(labels[index]))
            folder.mkdir(parents=True, exist_ok=True)
            mmcv.imwrite(images[index], folder / f'{index:04d}.png')  # raises, unlike cv2.imwrite
    return dict(train=len(train), test=len(test))
