"""Two processes compute the gradients of one."""

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from test_configs import samples

from mmpaca.models import PaCaViT

sys.path.insert(0, str(Path(__file__).parent.parent / 'engine'))
import toy


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def test_the_backbone_as_with_the_joined_batch(tmp_path):
    def body(rank: int) -> None:
        torch.manual_seed(0)
        model = PaCaViT(toy.TINY, num_clusters=5, drop_path_rate=0.0).double()
        images = torch.randn(4, 3, 64, 48, dtype=torch.float64)

        def loss(outs) -> torch.Tensor:
            return sum((out**2).mean() for out in outs)

        loss(model(images)).backward()
        joined = gradients(model)
        model.zero_grad()
        ddp = torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
        loss(ddp(images[2 * rank : 2 * rank + 2])).backward()
        for name, grad in gradients(model).items():
            torch.testing.assert_close(grad, joined[name], rtol=1e-9, atol=1e-12)

    toy.in_processes(tmp_path, body)


@pytest.mark.parametrize(
    ('teacher_depths', 'with_cp'), [(None, False), (None, True), ((1, 1, 1, 1), False)]
)
def test_no_parameter_is_left_unused(tmp_path, teacher_depths, with_cp):
    """DistributedDataParallel without find_unused_parameters; three steps, then equal weights."""

    def body(rank: int) -> None:
        torch.manual_seed(0)
        arch = dict(toy.TINY, depths=(2, 1, 1, 1), teacher_depths=teacher_depths)
        model = PaCaViT(arch, num_clusters=3, drop_path_rate=0.0, with_cp=with_cp)
        ddp = torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
        optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
        before = model.stem.norm.weight.detach().clone()
        for step in range(3):
            torch.manual_seed(100 * step + rank)
            optimizer.zero_grad()
            outs = ddp(torch.randn(2, 3, 64, 64))
            sum((out * torch.randn(out.shape)).mean() for out in outs).backward()
            optimizer.step()
        flat = torch.cat([p.detach().flatten() for p in model.parameters()])
        gathered = [torch.empty_like(flat) for _ in range(2)]
        dist.all_gather(gathered, flat)
        assert torch.equal(*gathered) and not torch.equal(before, model.stem.norm.weight)

    toy.in_processes(tmp_path, body)


def test_a_detector_where_one_process_has_no_instances(tmp_path, root):
    """The mean of the gradients that each process computes alone, and no process waits forever."""

    def body(rank: int) -> None:
        cfg = Config.fromfile(root / 'configs/demo/mask-rcnn_paca-demo_shapes.py').model
        cfg.backbone.arch, cfg.neck.in_channels = toy.TINY, [8] * 4
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope('mmdet'):
            model = MMDET_MODELS.build(cfg).train()
        wrapped = torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)

        def step(forward, member: int) -> dict:
            model.zero_grad()
            data = samples(with_seg=False)
            if member == 1:
                for sample in data['data_samples']:
                    sample.gt_instances = sample.gt_instances[:0]
            data = model.data_preprocessor(data, True)
            torch.manual_seed(member)  # the heads draw samples
            losses = forward(**data, mode='loss')
            model.parse_losses(losses)[0].backward()
            return gradients(model)

        alone = [step(model, member) for member in (0, 1)]
        for name, grad in step(wrapped, rank).items():
            mean = (alone[0][name] + alone[1][name]) / 2
            torch.testing.assert_close(grad, mean, rtol=1e-4, atol=1e-6)
            assert grad.isfinite().all()

    toy.in_processes(tmp_path, body)
