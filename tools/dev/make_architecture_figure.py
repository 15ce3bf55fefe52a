"""Draw docs/images/architecture.svg: the PaCa-ViT pyramid and patch-to-cluster attention.

Run without arguments after a change; a test compares the file with what this script draws.
"""

import math
from pathlib import Path
from xml.sax.saxutils import escape

OUT = Path(__file__).resolve().parents[2] / 'docs/images/architecture.svg'
WIDTH, HEIGHT = 1280, 800

INK, MUTED, LINE = '#1f2328', '#59636e', '#8c959f'
PAPER, PANEL = '#ffffff', '#f6f8fa'
CLUSTERED, ATTENDED = '#ddf4ff', '#fff1e5'  # stages with clusters, with self-attention
# Okabe and Ito's colours, told apart by people with any kind of colour vision.
SKY, SUN, HOUSE, GRASS = '#56b4e9', '#e69f00', '#d55e00', '#009e73'
CLUSTERS = (SKY, SUN, HOUSE, GRASS)
# The image of the figure, 8 x 8 patches; a digit is the object in a patch.
SCENE = (
    '00000110',
    '00000110',
    '00200000',
    '02220000',
    '02220000',
    '02223333',
    '33333333',
    '33333333',
)
STAGES = (  # of an 800 x 1344 image
    ('Stage 1', '1/4', '67,200', '100 clusters'),
    ('Stage 2', '1/8', '16,800', '100 clusters'),
    ('Stage 3', '1/16', '4,200', '100 clusters'),
    ('Stage 4', '1/32', '1,050', 'self-attention'),
)


def text(
    x: float, y: float, words: str, size: int = 17, *, anchor: str = 'middle',
    weight: int = 400, colour: str = INK,
) -> str:  # fmt: skip
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )


def box(
    x: float, y: float, width: float, height: float, fill: str = PANEL, stroke: str = LINE,
    radius: float = 8,
) -> str:  # fmt: skip
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" '
        f'fill="{fill}" stroke="{stroke}"/>'
    )


def titled(x: float, y: float, width: float, height: float, title: str, *lines: str) -> list[str]:
    """A box with a bold first line."""
    first = y + height / 2 - 11 * len(lines) + 6
    return [
        box(x, y, width, height),
        text(x + width / 2, first, title, weight=600),
        *(text(x + width / 2, first + 22 * i, line, 16) for i, line in enumerate(lines, start=1)),
    ]


def arrow(*points: tuple[float, float]) -> str:
    path = ' '.join(f'{x:g},{y:g}' for x, y in points)
    return (
        f'<polyline points="{path}" fill="none" stroke="{INK}" stroke-width="1.8" '
        'marker-end="url(#head)"/>'
    )


def matrix(x: float, y: float, cell: tuple[float, float], rows: list[list[tuple[str, float]]]) -> list[str]:  # fmt: skip
    """Cells of a colour and an opacity, in a frame."""
    width, height = cell
    cells = [
        f'<rect x="{x + column * width:g}" y="{y + row * height:g}" width="{width:g}" '
        f'height="{height:g}" fill="{colour}" fill-opacity="{opacity:.2f}"/>'
        for row, values in enumerate(rows)
        for column, (colour, opacity) in enumerate(values)
    ]
    frame = box(x, y, len(rows[0]) * width, len(rows) * height, 'none', INK, 0)
    return [*cells, frame]


def weights() -> list[list[float]]:
    """How much each of the 64 patches is of each cluster, (N, M): a soft assignment."""
    patches = [(r, c, int(kind)) for r, row in enumerate(SCENE) for c, kind in enumerate(row)]
    return [
        [0.9 - 0.25 * math.sin(3 * r + 2 * c) ** 2 if m == kind else 0.06 for m in range(4)]
        for r, c, kind in patches
    ]


def picture(x: float, y: float, cell: float) -> list[str]:
    """The image of the figure, cut into patches."""
    rows = [[(CLUSTERS[int(kind)], 0.8) for kind in row] for row in SCENE]
    side = 8 * cell
    cuts = ''.join(
        f'M{x + k * cell:g},{y:g} v{side:g} M{x:g},{y + k * cell:g} h{side:g} ' for k in range(1, 8)
    )
    return [*matrix(x, y, (cell, cell), rows), f'<path d="{cuts}" stroke="{PAPER}"/>']


def pyramid() -> list[str]:
    """The network: stem, four stages and what takes their maps."""
    parts = [
        text(40, 50, 'PaCa-ViT: four stages, one map from each', 21, anchor='start', weight=600)
    ]
    parts += picture(40, 150, 15)
    parts += [text(100, 294, 'image', 16, colour=MUTED), arrow((160, 210), (184, 210))]
    parts += [box(186, 150, 64, 120), text(218, 204, 'Stem', weight=600), text(218, 228, '1/4', 16)]
    left, gap = 276, 24
    parts.append(box(left, 74, 4 * 138 + 3 * gap, 38, '#ddf7e5'))
    parts.append(text(left + 2 * 138 + 36, 99, 'neck and head of any detector, or a classifier', 17, weight=600))  # fmt: skip
    for i, (name, scale, patches, kind) in enumerate(STAGES):
        x = left + i * (138 + gap)
        parts.append(arrow((x - gap, 210), (x - 2, 210)))
        parts.append(box(x, 150, 138, 120, ATTENDED if i == 3 else CLUSTERED))
        parts.append(text(x + 69, 178, name, weight=600))
        parts += [
            text(x + 69, y, words, 16)
            for y, words in ((203, f'map {scale}'), (227, f'{patches} patches'), (252, kind))
        ]
        parts.append(arrow((x + 69, 150), (x + 69, 115)))
    parts.append(text(left + 312, 294, 'numbers for an 800 x 1344 image', 16, colour=MUTED))
    return parts


def comparison() -> list[str]:
    """What attention costs in stage 1, with and without clusters."""
    x, y, side = 960, 96, 150
    return [
        text(x, 50, 'Attention in stage 1', 21, anchor='start', weight=600),
        box(x, y, side, side, ATTENDED, INK, 0),
        text(x + side / 2, y + 66, 'N x N', 18, weight=600),
        text(x + side / 2, y + 92, '4.5 billion', 17),
        text(x + side / 2, y + side + 24, 'self-attention', 16, colour=MUTED),
        f'<rect x="{x + 190}" y="{y}" width="1" height="{side}" fill="{INK}"/>',
        text(x + 202, y + 66, 'N x M', 18, anchor='start', weight=600),
        text(x + 202, y + 92, '6.7 million', 17, anchor='start'),
        text(x + 190, y + side + 24, 'clusters', 16, anchor='start', colour=MUTED),
        text(
            x,
            y + side + 48,
            'areas to scale (the line is a bit too wide)',
            14,
            anchor='start',
            colour=MUTED,
        ),  # fmt: skip
    ]


def attention() -> list[str]:
    """Patch-to-cluster attention, from patches to patches."""
    shares = weights()
    columns = [[row[m] for row in shares] for m in range(4)]
    parts = [
        text(40, 364, 'Patch-to-cluster attention', 21, anchor='start', weight=600),
        text(
            322,
            364,
            'M clusters stand in for N patches as keys and values',
            17,
            anchor='start',
            colour=MUTED,
        ),  # fmt: skip
    ]
    parts += picture(40, 476, 17)
    parts += [text(108, 634, 'x', 18, weight=600), text(108, 656, 'N patches', 16, colour=MUTED)]

    parts.append(arrow((176, 520), (200, 520), (200, 442), (236, 442)))
    parts += titled(238, 396, 190, 92, '1  Assign', 'small convolutions,', 'softmax over patches')
    parts.append(arrow((428, 442), (468, 442)))
    parts += matrix(470, 414, (4, 14), [[(colour, v) for v in columns[m]] for m, colour in enumerate(CLUSTERS)])  # fmt: skip
    parts += [
        text(598, 402, 'Z: M x N', 17, weight=600),
        text(598, 492, 'each cluster chooses its patches', 16, colour=MUTED),
        arrow((726, 442), (766, 442)),
    ]
    parts += titled(768, 396, 150, 92, '2  Pool', 'c = LN(Z x)')
    parts.append(arrow((918, 442), (958, 442)))
    parts += matrix(960, 408, (90, 17), [[(colour, 0.8)] for colour in CLUSTERS])
    parts += [text(1005, 402, 'c', 18, weight=600), text(1062, 448, 'M clusters', 16, anchor='start', colour=MUTED)]  # fmt: skip

    parts.append(arrow((176, 570), (200, 570), (200, 640), (236, 640)))
    parts += titled(238, 606, 190, 68, 'Queries', 'q = linear(x)')
    parts.append(arrow((428, 640), (558, 640)))
    parts += matrix(568, 534, (16, 3.25), [[(CLUSTERS[m], v) for m, v in enumerate(row)] for row in shares])  # fmt: skip
    parts += [
        text(650, 574, 'A: N x M', 17, anchor='start', weight=600),
        text(650, 598, 'each patch chooses', 16, anchor='start', colour=MUTED),
        text(650, 620, 'its clusters', 16, anchor='start', colour=MUTED),
        text(492, 630, 'softmax(q kᵀ/√d)', 15),
        arrow((984, 478), (984, 516), (600, 516), (600, 531)),
        text(800, 508, 'keys  k = linear(c)', 16),
        arrow((634, 640), (866, 640)),
    ]
    parts += titled(868, 606, 150, 68, '3  Attend', 'A v')
    parts += [
        arrow((1030, 478), (1030, 560), (943, 560), (943, 603)),
        text(1040, 556, 'values  v = linear(c)', 16, anchor='start'),
        arrow((1018, 640), (1058, 640)),
    ]
    parts += titled(1060, 594, 180, 92, 'MLP', 'with a 3 x 3 depthwise', 'convolution')
    parts.append(text(1150, 712, 'both branches are residual', 16, colour=MUTED))
    parts.append(
        text(
            40,
            768,
            'Cost O(N M C): linear in the number of patches, where self-attention has O(N² C). By default all blocks of a stage share one Z.',
            17,
            anchor='start',
        )  # fmt: skip
    )
    return parts


def draw() -> str:
    """The figure as text of an SVG file."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="Helvetica, Arial, \'Liberation Sans\', sans-serif" role="img">',
        '<title>PaCa-ViT and its patch-to-cluster attention</title>',
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" '
        f'markerHeight="6" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{INK}"/></marker></defs>',
        box(0.5, 0.5, WIDTH - 1, HEIGHT - 1, PAPER, '#d1d9e0', 16),
        *pyramid(),
        *comparison(),
        f'<line x1="40" y1="320" x2="{WIDTH - 40}" y2="320" stroke="#d1d9e0"/>',
        *attention(),
        '</svg>',
    ]
    return '\n'.join(parts) + '\n'


if __name__ == '__main__':
    OUT.write_text(draw())
    print(f'{OUT}: {OUT.stat().st_size // 1024} KiB')
