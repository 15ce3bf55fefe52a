"""The device that a command runs on."""


def find_device(text: str | None = None) -> str:
    """Check the name of a device.

    Args:
        text: ``'cpu'``, ``'cuda'`` or ``'cuda:N'``; None for the first GPU if there is one.

    Raises:
        ValueError: PyTorch knows no such device, or cannot use it here.
    """
    import torch

    if text is None:
        return 'cuda:0' if torch.cuda.is_available() else 'cpu'
    try:
        device = torch.device(text)
    except RuntimeError:
        raise ValueError(f'--device {text}: give cpu, cuda or cuda:N') from None
    if device.type not in ('cpu', 'cuda'):
        raise ValueError(f'--device {text}: give cpu, cuda or cuda:N')
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f'--device {text}: this machine has {torch.cuda.device_count()} usable GPUs'
        )
    return text
