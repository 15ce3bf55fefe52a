"""CIFAR-100 from local files. Needs mmpretrain, so configs name it by its module."""

from typing import Any

from mmpretrain.datasets import CIFAR100
from mmpretrain.datasets.utils import check_integrity


class LocalCIFAR100(CIFAR100):
    """mmpretrain's CIFAR100, but files that are missing are an error instead of a download.

    Args:
        data_root: holds ``cifar-100-python/{train,test,meta}``, checked by their md5 sums.
        kwargs: as of ``mmpretrain.CIFAR100``, but ``download``.
    """

    def __init__(self, data_root: str, **kwargs: Any) -> None:
        super().__init__(data_root=data_root, download=False, **kwargs)

    def load_data_list(self) -> list[dict]:
        """The images and labels, on every rank.

        Raises:
            FileNotFoundError: one sentence with what is wrong and where to get it.
        """
        root = self.data_prefix['root']
        files = [*self.train_list, *self.test_list, (self.meta['filename'], self.meta['md5'])]
        wrong = [
            f'{self.base_folder}/{name}'
            for name, md5 in files
            if not check_integrity(f'{root}/{self.base_folder}/{name}', md5)
        ]
        if wrong:
            raise FileNotFoundError(
                f'CIFAR-100 is not complete in {root}: {", ".join(wrong)} missing or with another '
                f'md5 sum; download {self.url} and unpack it there, with: '
                f'mkdir -p {root} && tar -xzf {self.filename} -C {root}'
            )
        return super().load_data_list()
