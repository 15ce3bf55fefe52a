"""Draw clusters during validation."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import mmcv
from mmengine.dist import is_main_process
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from mmpaca.engine.wrappers import unwrapped
from mmpaca.explain.recorder import record
from mmpaca.registry import HOOKS


@ROOT_HOOKS.register_module()
@HOOKS.register_module()
class ClusterVisualizationHook(Hook):
    """Draw the clusters of some validation images to every backend of the visualizer.

    The pictures are those of ``mmpaca clusters``. Their names, ``clusters_<image>_<picture>``, are
    the same at each validation and the step is the training iteration: TensorBoard shows a slider
    over iterations, the local backend writes files that sort by them. W&B shows a slider over its
    own steps, one for each picture or log line, because mmengine's backend does not pass the
    iteration on.

    Args:
        interval: Draw at the first and then every ``interval``-th validation.
        num_images: Number of images, the first ones of the validation set (of rank 0's share).
        num_clusters: Number of heat maps per stage.
        score_thr: Minimum score of the detections drawn.
        backend_args: File backend options for reading the images.

    Raises:
        ValueError: ``interval`` or ``num_images`` is less than 1.
    """

    def __init__(
        self,
        interval: int = 1,
        num_images: int = 4,
        num_clusters: int = 4,
        score_thr: float = 0.3,
        backend_args: dict | None = None,
    ) -> None:
        if interval < 1 or num_images < 1:
            raise ValueError(f'interval={interval} and num_images={num_images} must be at least 1')
        self.interval = interval
        self.num_images = num_images
        self.num_clusters = num_clusters
        self.score_thr = score_thr
        self.backend_args = backend_args
        self._validations = 0
        self._open = ExitStack()

    def before_val(self, runner: Runner) -> None:
        """Start recording if this validation is drawn."""
        due = self._validations % self.interval == 0
        self._validations += 1
        self._left = self.num_images if due and is_main_process() else 0
        if self._left:
            self._recording = self._open.enter_context(
                record(unwrapped(runner.model, allow_tta=False), attention='last')
            )

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[BaseDataElement] = (),
    ) -> None:
        """Draw the next images; stop recording after the last one."""
        if not self._left:
            return
        for index, sample in enumerate(outputs[: self._left]):
            self._draw(runner, index, sample)
            self._left -= 1
        if not self._left:
            self._open.close()

    def after_val(self, runner: Runner) -> None:
        """Stop recording."""
        self._open.close()

    def _draw(self, runner: Runner, index: int, sample: BaseDataElement) -> None:
        # Imported late: most runs draw nothing.
        from mmpaca.explain.scene import Scene
        from mmpaca.explain.sheets import all_sheets

        content = get(sample.img_path, backend_args=self.backend_args)
        image = mmcv.imfrombytes(content, channel_order='rgb')
        if image.shape[:2] != sample.ori_shape[:2]:  # as mmpaca.LoadVerifiedImageFromFile does
            image = mmcv.imfrombytes(content, 'color_ignore_orientation', 'rgb')
        classes = (runner.visualizer.dataset_meta or {}).get('classes')
        scene = Scene.from_sample(image, sample, self._recording, index, classes, self.score_thr)
        for name, picture in all_sheets(scene, self.num_clusters):
            runner.visualizer.add_image(
                f'clusters_{Path(sample.img_path).stem}_{name}', picture, step=runner.iter
            )
