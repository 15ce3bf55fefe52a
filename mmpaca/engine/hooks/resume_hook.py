"""A resumed run is the same run."""

from functools import partial
from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmpaca.engine.resumable_dataloader import ContinuedIterator, continued_dataloader
from mmpaca.engine.rng import get_rng_state, set_rng_state
from mmpaca.registry import HOOKS


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Save what mmengine leaves out of a checkpoint, and go on from there.

    mmengine saves weights, optimizer, schedulers, EMA, loss scale and message hub. This adds the
    states of all random generators of every rank, the sampler's seed, and the place among the
    batches, also inside an epoch. Batches before it are skipped without loading them. A
    validation that the run died in, or before, is made up for. Validation itself leaves the
    generators as it found them.

    The resumed run ends with the weights of an uninterrupted one, bit for bit, as far as the
    operators are deterministic. That holds with any number of workers, for each sample is seeded
    (``mmpaca.engine.rng.Draws``), but not for pipelines that remember samples, as CachedMosaic does.
    Gradients accumulated over several iterations are not saved: let the interval of checkpoints
    be a multiple of ``accumulative_counts``.

    In distributed runs ``mmpaca.AtomicCheckpointHook`` is needed, for mmengine's saves on rank 0 alone.
    """

    priority = 'LOWEST'  # resumes when all other hooks have begun

    def __init__(self) -> None:
        self._saved: dict | None = None  # for the checkpoint being written
        self._loaded: dict | None = None  # from the checkpoint being resumed
        self._before_val: dict | None = None  # generators while validating

    def before_checkpoint(self, runner: Runner) -> None:
        """Collect the states of all ranks; called on every rank before a save."""
        # No state in the middle of a validation: the next training iteration comes after it.
        self._saved = dict(
            rng=all_gather_object(self._before_val or get_rng_state()),
            sampler_seed=getattr(_sampler(runner.train_dataloader), 'seed', None),
            batches_per_epoch=len(runner.train_dataloader),
            validated=self._before_val is not None,
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the states to the checkpoint."""
        if self._saved is None and get_world_size() == 1:
            self.before_checkpoint(runner)
        if self._saved is not None:
            checkpoint['run_state'] = self._saved
        elif 'optimizer' in checkpoint:  # nobody resumes from what save_best saves
            runner.logger.warning(
                'the random states of the other ranks are not saved: use mmpaca.AtomicCheckpointHook'
            )
        self._saved = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the states; whether the run is resumed shows later."""
        self._loaded = checkpoint.get('run_state')

    def before_train(self, runner: Runner) -> None:
        """Continue where the checkpoint was saved.

        Raises:
            RuntimeError: another number of processes, or of batches per epoch.
        """
        state, self._loaded = self._loaded, None
        if runner.iter == 0:
            self._place(runner, None)
            return
        if state is None:
            runner.logger.warning(
                'the checkpoint was saved without mmpaca.ExactResumeHook: random numbers and the order '
                'of the data differ from those of an uninterrupted run'
            )
            return
        if len(state['rng']) != get_world_size():
            raise RuntimeError(
                f'this run was started with {len(state["rng"])} processes and cannot be resumed '
                f'with {get_world_size()}: start {len(state["rng"])}, or begin a new run from its '
                'weights with --cfg-options load_from=FILE (without --resume)'
            )
        if not state['validated'] and _validation_is_due(runner, state['batches_per_epoch']):
            runner.logger.info('Making up for the validation before which the run ended.')
            runner.val_loop.run()
        self._place(runner, state)

    def _place(self, runner: Runner, state: dict | None) -> None:
        """Put the train loop's data loader and the generators where they were, or at the start."""
        loop = runner.train_loop
        if 'train_dataloader' not in runner.cfg or not hasattr(
            _sampler(loop.dataloader), 'dataset'
        ):
            if state is not None:
                set_rng_state(state['rng'][get_rank()])
                runner.logger.warning(
                    f'no place among the batches of {type(_sampler(loop.dataloader)).__name__}: '
                    'the order of the data differs from that of an uninterrupted run'
                )
            return
        infinite = hasattr(loop, 'dataloader_iterator')  # IterBasedTrainLoop
        skip, seed, restore = 0, getattr(_sampler(loop.dataloader), 'seed', None), None
        if state is not None:
            skip, seed = runner.iter, state['sampler_seed']
            restore = partial(set_rng_state, state['rng'][get_rank()])
            if not infinite:
                skip -= runner.epoch * state['batches_per_epoch']
            if skip and len(loop.dataloader) != state['batches_per_epoch']:
                raise RuntimeError(
                    'the checkpoint was saved inside an epoch of '
                    f'{state["batches_per_epoch"]} batches, which is now {len(loop.dataloader)}: '
                    'resume with the same data and batch size'
                )
            if skip:
                runner.logger.info(f'Continuing after {skip} batches, which are not loaded again.')
            else:
                restore()
        loop.dataloader = continued_dataloader(
            runner.cfg.train_dataloader,
            loop.dataloader,
            seed,
            skip,
            # Not before: an iterator of a data loader draws a number when it is made.
            before_first=restore if skip else None,
        )
        if infinite:
            loop.dataloader_iterator = ContinuedIterator(loop.dataloader, skip)

    def before_val(self, runner: Runner) -> None:
        """Note the generators."""
        self._before_val = get_rng_state()

    def after_val(self, runner: Runner) -> None:
        """Training goes on as if there had been no validation."""
        if self._before_val is not None:
            set_rng_state(self._before_val)
        self._before_val = None


def _sampler(dataloader: DataLoader) -> Any:
    return getattr(dataloader.batch_sampler, 'sampler', None)


def _validation_is_due(runner: Runner, batches_per_epoch: int) -> bool:
    """Whether the loop validates between the last iteration done and the next one."""
    loop = runner.train_loop
    if runner.val_loop is None:
        return False
    loop._decide_current_val_interval()
    if hasattr(loop, 'dataloader_iterator'):
        done, end = runner.iter, runner.max_iters
    else:
        done, end = runner.epoch, runner.max_epochs
        if runner.iter != runner.epoch * batches_per_epoch:
            return False
    return done >= loop.val_begin and (done % loop.val_interval == 0 or done == end)
