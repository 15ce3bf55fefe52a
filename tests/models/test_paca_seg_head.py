"""The authors' segmentors: their numbers from their names and weights."""

import gzip
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from official import DATA, official_tensors

from mmpaca.models import PaCaSegHead, PaCaViT
from mmpaca.models.official import convert_official

GOLDEN = json.loads(gzip.decompress((DATA / 'golden_seg.json.gz').read_bytes()))
ARCHS = dict(
    pacahead_tiny_conv=dict(arch='tiny', num_clusters=(200, 200, 200, 0)),
    pacahead_tiny_teacher=dict(arch='tiny_teacher', num_clusters=200),
)
CHANNELS = (96, 192, 320, 384)


class Segmentor(torch.nn.Module):
    """Backbone and head under the names of mmseg's EncoderDecoder."""

    def __init__(self, arch: dict) -> None:
        super().__init__()
        self.backbone = PaCaViT(**arch, drop_path_rate=0.0)
        self.decode_head = PaCaSegHead(CHANNELS, num_classes=150, dropout_ratio=0.0)


@pytest.fixture(scope='module', params=GOLDEN)
def case(request):
    """The expected arrays, the authors' names and a segmentor with their weights, in float64."""
    golden = GOLDEN[request.param]
    weights = official_tensors(golden['shapes'])
    model = Segmentor(ARCHS[request.param])
    model.load_state_dict(convert_official(weights, 'detector'))
    return golden['arrays'], golden['shapes'], model.double().eval()


def noise(seed: int, *shapes: tuple) -> list[torch.Tensor]:
    rng = np.random.RandomState(seed)
    return [torch.from_numpy(rng.standard_normal(s).astype(np.float32)) for s in shapes]


def check(expected: dict, value: torch.Tensor, tolerance: float) -> None:
    """Errors relative to the largest magnitude of the array."""
    assert list(value.shape) == expected['shape']
    flat = value.detach().double().contiguous().flatten()
    overall = torch.stack([flat.mean(), flat.std(correction=0), flat.abs().max()])
    errors = torch.cat(
        [
            flat[torch.tensor(expected['index'])] - torch.tensor(expected['value']).double(),
            overall - torch.tensor(expected['mean_std_absmax']).double(),
        ]
    )
    assert errors.abs().max() < tolerance * expected['mean_std_absmax'][2]


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
@pytest.mark.parametrize(
    ('size', 'sides'),
    [
        ('even', [(16, 24), (8, 12), (4, 6), (2, 3)]),
        ('odd', [(19, 26), (10, 13), (5, 7), (3, 4)]),
    ],
)
def test_head(case, size, sides, dtype, tolerance):
    arrays, _, model = case
    maps = noise(17, *((2, c, *side) for c, side in zip(CHANNELS, sides, strict=True)))
    head = model.decode_head.to(dtype)
    with torch.no_grad():
        logits, clusters = head.logits_and_clusters([x.to(dtype) for x in maps])
    model.double()
    check(arrays[f'{size}_head_logits'], logits, tolerance)
    check(arrays[f'{size}_head_clusters'], clusters, tolerance)


def test_prediction(case):
    arrays, _, model = case
    (image,) = noise(7, (2, 3, 64, 96))
    with torch.no_grad():
        maps = model.backbone(image.double())
        check(arrays['even_logits'], model.decode_head(maps), 1e-6)
        meta = dict(img_shape=(60, 90), pad_shape=(64, 96))
        check(arrays['even_pred'], model.decode_head.predict(maps, [meta] * 2, {}), 1e-6)


def test_training(case):
    """Losses, accuracies, gradients and running statistics."""
    arrays, shapes, model = case
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rng = np.random.RandomState(13)
    label = rng.randint(0, 150, (2, 1, 64, 96))
    label[rng.random_sample(label.shape) < 0.1] = 255
    samples = [
        SimpleNamespace(gt_sem_seg=SimpleNamespace(data=torch.from_numpy(one))) for one in label
    ]
    (image,) = noise(11, (2, 3, 64, 96))
    image = image.double().requires_grad_()
    model.train()
    losses = model.decode_head.loss(model.backbone(image), samples, {})
    total = losses['loss_ce'] + losses['paca.loss_ce']
    total.backward()

    for ours, theirs in (
        ('loss_ce', 'train_decode.loss_ce'),
        ('acc_seg', 'train_decode.acc_seg'),
        ('paca.loss_ce', 'train_paca.loss_ce'),
        ('paca.acc_seg', 'train_paca.acc_seg'),
    ):
        assert losses[ours].item() == pytest.approx(arrays[theirs], rel=1e-6)
    check(arrays['train_grad_input'], image.grad, 1e-6)
    # Our names of theirs: a conversion of numbers instead of weights.
    numbered = {name: torch.tensor(i) for i, name in enumerate(shapes)}
    names = {
        list(shapes)[int(i)]: name for name, i in convert_official(numbered, 'detector').items()
    }
    state = {**dict(model.named_buffers()), **{n: p.grad for n, p in model.named_parameters()}}
    checked = 0
    for key, expected in arrays.items():
        kind, _, theirs = key.partition(':')
        if theirs:
            check(expected, state[names[theirs]], 1e-6)
            checked += 1
    assert checked == 12
    model.load_state_dict(before)
    model.zero_grad()
    model.eval()


def test_bfloat16_keeps_the_classes():
    """Attention logits and pooling are computed in float32 under autocast."""
    torch.manual_seed(0)
    head = PaCaSegHead((16, 32), num_classes=20, channels=64).eval()
    maps = [torch.randn(1, 16, 24, 32), torch.randn(1, 32, 12, 16)]
    with torch.no_grad():
        exact = head(maps)
        with torch.autocast('cpu', torch.bfloat16):
            rounded = head(maps)
    assert (exact.argmax(1) == rounded.argmax(1)).float().mean() > 0.95


def test_an_image_without_labels_gives_no_loss():
    head = PaCaSegHead((8,), num_classes=3, channels=4)
    sample = SimpleNamespace(
        gt_sem_seg=SimpleNamespace(data=torch.full((1, 16, 16), 255, dtype=torch.long))
    )
    losses = head.loss([torch.randn(1, 8, 4, 4)], [sample], {})
    assert losses['loss_ce'].item() == losses['paca.loss_ce'].item() == 0
    assert losses['acc_seg'].item() == 0


def test_initialisation_of_the_classifier():
    torch.manual_seed(0)
    head = PaCaSegHead((64,), num_classes=150, channels=256)
    head.init_weights()
    assert head.conv_seg.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not head.conv_seg.bias.any()
    assert head.q[0].conv.weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.02)
