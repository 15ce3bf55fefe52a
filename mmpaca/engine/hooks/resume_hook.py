"""Exact resume."""

from functools import partial

from mmengine.dist import all_gather_object, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmpaca.checkpoint.schema import ResumeError
from mmpaca.engine.elastic import accumulate, micro_batches, restore_rng
from mmpaca.engine.resumable_dataloader import ContinuedIterator, continued_dataloader
from mmpaca.engine.rng import get_rng_state, set_rng_state
from mmpaca.engine.run_state import batches_done, describe_optimizers, epoch_start, sampler_of
from mmpaca.registry import HOOKS


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Exact resume. An interrupted or due validation is run first.

    mmengine saves weights, optimizer, schedulers, EMA, loss scale and message hub. This hook adds
    the states of all random number generators of every rank, the sampler's seed and the position
    in the epoch. Batches before that position are skipped without loading them. Validation
    restores the generators when it ends.

    With deterministic operators, the resumed run ends with exactly the weights of an
    uninterrupted one. This holds for any number of workers, because each sample is seeded
    (:class:`mmpaca.engine.rng.Draws`), but not for pipelines that cache samples, e.g. CachedMosaic.
    Accumulated gradients are not saved: use a checkpoint interval that is a multiple of
    ``accumulative_counts``.

    Distributed runs need ``mmpaca.AtomicCheckpointHook``, because mmengine's hook saves on rank 0
    only.

    Args:
        elastic: Resume with any number of processes that divides the global batch
            (``mmpaca.engine.elastic``); the run is then not the same bit for bit.
        enabled: Set False to switch the hook off.
    """

    priority = 'LOWEST'  # resumes after all other hooks are set up

    def __init__(self, elastic: bool = False, enabled: bool = True) -> None:
        self.elastic = elastic
        self.enabled = enabled
        self._started: int | None = None  # processes at the start, if not as many as now
        self._saved: dict | None = None  # state for the checkpoint being written
        self._loaded: dict | None = None  # state from the loaded checkpoint
        self._before_val: dict | None = None  # generators, during validation
        self._epoch_start = dict(epoch=0, iter=0)

    def before_checkpoint(self, runner: Runner) -> None:
        """Collect the states of all ranks; called on every rank before a save."""
        if not self.enabled:
            return
        # During validation, the generators of the next training iteration are those before it.
        self._saved = dict(
            rng=all_gather_object(self._before_val or get_rng_state()),
            sampler_seed=getattr(sampler_of(runner.train_dataloader), 'seed', None),
            batches_per_epoch=len(runner.train_dataloader),
            # Another batch size may have come at the end of an epoch.
            epoch_start=dict(self._epoch_start),
            optimizers=describe_optimizers(runner.optim_wrapper),
            validated=self._before_val is not None,
        )
        if self._started is not None:
            self._saved['started'] = self._started

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the states to the checkpoint."""
        if not self.enabled:
            return
        if self._saved is None and get_world_size() == 1:
            self.before_checkpoint(runner)
        if self._saved is not None:
            checkpoint['run_state'] = self._saved
        elif 'optimizer' in checkpoint:  # save_best's checkpoints have none
            runner.logger.warning(
                'the random states of other ranks were not saved: use mmpaca.AtomicCheckpointHook'
            )
        self._saved = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the states for :meth:`before_train`."""
        self._loaded = checkpoint.get('run_state')

    def before_train(self, runner: Runner) -> None:
        """Continue where the checkpoint was saved.

        Raises:
            ResumeError: The number of processes or of batches per epoch has changed.
        """
        if not self.enabled:
            return
        state, self._loaded = self._loaded, None
        if runner.iter == 0:
            self._place(runner, None)
            return
        if state is None:
            runner.logger.warning(
                'the checkpoint was saved without mmpaca.ExactResumeHook: random numbers and data '
                'order differ from those of an uninterrupted run'
            )
            return
        if len(state['rng']) != get_world_size() and not self.elastic:
            raise ResumeError(
                f'this run was started with {len(state["rng"])} processes and cannot be resumed '
                f'with {get_world_size()}: use {len(state["rng"])}, or start a new run from its '
                'weights with --cfg-options load_from=FILE (without --resume), or keep the global '
                'batch with --elastic'
            )
        self._set_started(runner, state)
        skip = self._place(runner, state)
        if not state['validated'] and _validation_is_due(runner, skip):
            runner.logger.info('Running the validation that was due or interrupted.')
            # A checkpoint saved by this validation (save_best) has the generators before it.
            restore_rng(state['rng'])
            runner.val_loop.run()

    def _set_started(self, runner: Runner, state: dict) -> None:
        """Prepare for another number of processes than the run was started with."""
        started = state.get('started', len(state['rng']))
        if started == get_world_size():
            return
        self._started = started
        size = runner.cfg.train_dataloader.batch_size
        count = micro_batches(size, started, get_world_size())
        share = size * started // get_world_size()
        runner.logger.info(
            f'Elastic: started with {started} processes, resumed with {get_world_size()}. The '
            f'global batch is {size * started} as before: {share} images per process, in {count} '
            f'accumulated micro-batches of {share // count}; the learning rate is unchanged.'
        )

    def before_train_epoch(self, runner: Runner) -> None:
        """Note where the epoch begins; a resumed one has begun before."""
        if self.enabled and self._epoch_start['epoch'] != runner.epoch:
            self._epoch_start = dict(epoch=runner.epoch, iter=runner.iter)

    def _place(self, runner: Runner, state: dict | None) -> int:
        """Move the train loop's dataloader and the generators to a saved state, or to the start.

        Returns:
            Number of finished batches of the current epoch; of the run, if iteration-based.
        """
        loop = runner.train_loop
        infinite = hasattr(loop, 'dataloader_iterator')  # IterBasedTrainLoop
        skip = 0
        if state is not None:
            skip = runner.iter if infinite else batches_done(state, runner.epoch, runner.iter)
            if not infinite:
                self._epoch_start = dict(epoch_start(state, runner.epoch))
        if 'train_dataloader' not in runner.cfg or not hasattr(
            sampler_of(loop.dataloader), 'dataset'
        ):
            if state is not None:
                restore_rng(state['rng'])
                runner.logger.warning(
                    f'cannot restore the position of {type(sampler_of(loop.dataloader)).__name__}: '
                    'the data order differs from that of an uninterrupted run'
                )
            return skip
        seed, restore = getattr(sampler_of(loop.dataloader), 'seed', None), None
        if state is not None:
            seed = state['sampler_seed']
            restore = partial(restore_rng, state['rng'])
            if skip:
                runner.logger.info(
                    f'Skipped {skip} batches of the interrupted run without loading them.'
                )
            else:
                restore()
        loader = continued_dataloader(
            runner.cfg.train_dataloader,
            loop.dataloader,
            seed,
            skip,
            # Not earlier: creating an iterator of a dataloader draws a random number.
            before_first=restore if skip else None,
            started=self._started,
        )
        if state is not None and skip and len(loader) != state['batches_per_epoch']:
            raise ResumeError(
                'the checkpoint was saved inside an epoch of '
                f'{state["batches_per_epoch"]} batches, which now has '
                f'{len(loader)}: resume with the same data and batch size'
            )
        loop.dataloader = loader
        if self._started is not None:
            if not infinite:
                loop._max_iters = loop.max_epochs * len(loader)
            size = runner.cfg.train_dataloader.batch_size
            accumulate(runner, micro_batches(size, self._started, get_world_size()))
        if infinite:
            loop.dataloader_iterator = ContinuedIterator(loop.dataloader, skip)
        return skip

    def before_val(self, runner: Runner) -> None:
        """Save the generators."""
        self._before_val = get_rng_state() if self.enabled else None

    def after_val(self, runner: Runner) -> None:
        """Restore the generators."""
        if self._before_val is not None:
            set_rng_state(self._before_val)
        self._before_val = None


def _validation_is_due(runner: Runner, done_in_epoch: int) -> bool:
    """True if a validation comes between the last finished iteration and the next one."""
    loop = runner.train_loop
    if runner.val_loop is None:
        return False
    loop._decide_current_val_interval()
    if hasattr(loop, 'dataloader_iterator'):
        done, end = runner.iter, runner.max_iters
    elif done_in_epoch:
        return False  # inside an epoch
    else:
        done, end = runner.epoch, runner.max_epochs
    return done >= loop.val_begin and (done % loop.val_interval == 0 or done == end)
