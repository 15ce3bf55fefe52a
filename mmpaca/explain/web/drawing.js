// Colours and parts of a picture.

const rgb = ([r, g, b], alpha = 1) => `rgb(${r} ${g} ${b} / ${alpha})`;
const paletteOf = label => COLOURS.palette[label % COLOURS.palette.length];
const readableOn = ([r, g, b]) => 0.299 * r + 0.587 * g + 0.114 * b > 140 ? '#000' : '#fff';

// One colour of the heat map, of 0..1.
function heatColour(value) {
  const x = Math.min(Math.max(value, 0), 1) * (COLOURS.heat.length - 1);
  const i = Math.min(Math.floor(x), COLOURS.heat.length - 2);
  return COLOURS.heat[i].map((v, k) => Math.round(v + (COLOURS.heat[i + 1][k] - v) * (x - i)));
}

// Less than the mean is blue, more is orange to yellow: [r, g, b, opacity] of -1..1.
function contrastColour(value) {
  const [low, high] = value < 0 ? [[0, 114, 178], [86, 180, 233]] : [[213, 94, 0], [240, 228, 66]];
  const x = Math.min(Math.abs(value), 1);
  return [...low.map((v, k) => Math.round(v + (high[k] - v) * x)), Math.sqrt(x)];
}

// A canvas of one pixel per cell; paint gives [r, g, b, opacity 0..1] of cell n.
function cellCanvas({rows, columns}, paint) {
  const canvas = document.createElement('canvas');
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext('2d'), data = context.createImageData(columns, rows);
  for (let n = 0; n < rows * columns; n++) {
    const [r, g, b, opacity] = paint(n);
    data.data.set([r, g, b, 255 * opacity], 4 * n);
  }
  context.putImageData(data, 0, 0);
  return canvas;
}

// Heat of a value in multiples of an even spread, on colours that end at `top`: [r, g, b, opacity]. What
// is below an even spread stays grey.
function heatOf(value, top) {
  const root = Math.sqrt(value);
  return [...heatColour(0.15 + 0.85 * root / Math.sqrt(top)), Math.min(1, Math.max(0, (root - 0.8) / 0.8))];
}

// A map as heat; its values times `cells` are multiples of an even spread.
function heatCanvas(grid, map, cells, top) {
  return cellCanvas(grid, n => heatOf(map[n] * cells, top));
}

// Colours of a legend, over the grey of a picture.
const onGrey = ([r, g, b, opacity]) => `color-mix(in srgb, rgb(${r} ${g} ${b}) ${100 * opacity}%, #808080)`;
const heatBar = top => Array.from({length: 21}, (_, k) => onGrey(heatOf((k / 20) ** 2 * top, top)));
const contrastBar = Array.from({length: 11}, (_, k) => onGrey(contrastColour((k - 5) / 5)));

// The picture in grey: "saturation" takes the saturation of what is drawn, here none.
function drawPicture(context, scene, grey) {
  const {width, height} = context.canvas;
  context.globalAlpha = 1;
  context.imageSmoothingEnabled = width / scene.width < 2;  // the pixels of small images stay crisp
  context.imageSmoothingQuality = 'high';
  context.globalCompositeOperation = 'source-over';
  context.drawImage(scene.picture, 0, 0, width, height);
  if (!grey) return;
  context.globalCompositeOperation = 'saturation';
  context.fillStyle = '#808080';
  context.fillRect(0, 0, width, height);
  context.globalCompositeOperation = 'source-over';
}

function drawCells(context, scene, grid, cells, opacity, smooth) {
  const scale = context.canvas.width / scene.width, [left, top, width, height] = grid.cell.map(v => v * scale);
  context.globalAlpha = opacity;
  context.imageSmoothingEnabled = smooth;
  context.drawImage(cells, left, top, width * grid.columns, height * grid.rows);
  context.globalAlpha = 1;
}

// One line for the mask and one for the box. Its shadow keeps it visible on any ground.
function drawOutline(context, scene, found, colour, line) {
  const scale = context.canvas.width / scene.width;
  context.save();
  context.scale(scale, scale);
  context.shadowColor = '#000';
  context.shadowBlur = 2 * line;
  context.lineJoin = 'round';
  context.strokeStyle = colour;
  context.lineWidth = line / scale;
  context.stroke(found.path);
  if (!scene.segmented) {
    const [left, top, right, bottom] = found.box;
    // Where there is a mask, its outline leads.
    if (found.outline.length) Object.assign(context, {globalAlpha: 0.7, lineWidth: line / 2 / scale});
    context.strokeRect(left, top, right - left, bottom - top);
  }
  context.restore();
}

function drawFrame(context, scene, {cell: [left, top, width, height]}, [row, column], pixel) {
  const scale = context.canvas.width / scene.width;
  for (const [colour, line] of [['#000', 4], ['#fff', 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = line * pixel;
    context.strokeRect((left + column * width) * scale, (top + row * height) * scale, width * scale, height * scale);
  }
}

// A colour bar of the given colours, first at the left, and what its ticks say: [[position 0..1, text]].
function showLegend(figure, colours, ticks, caption) {
  figure.hidden = !colours;
  if (!colours) return;
  figure.querySelector('.bar').style.background = `linear-gradient(90deg, ${colours.join(', ')})`;
  figure.querySelector('.ticks').replaceChildren(...ticks.map(([at, text]) => {
    const tick = document.createElement('span');
    tick.style.left = `${100 * at}%`;
    tick.textContent = text;
    return tick;
  }));
  figure.querySelector('figcaption').textContent = caption;
}

// Scores while the most relevant pixels are removed, and while they alone are shown.
function showCurves(figure, curves) {
  figure.hidden = !curves;
  if (!curves) return;
  const x = v => 16 + 290 * v, y = v => 70 - 62 * v, last = curves[0].length - 1;
  const line = scores => scores.map((v, i) => `${i ? 'L' : 'M'}${x(i / last).toFixed(1)} ${y(v).toFixed(1)}`).join('');
  const area = scores => (scores.reduce((sum, v) => sum + v, 0) - (scores[0] + scores[last]) / 2) / last;
  figure.innerHTML = `<svg viewBox="0 0 320 86" role="img" aria-label="Deletion and insertion curve"><path class="axis"
    d="M16 8V70H306M16 8H306"/><path d="${line(curves[0])}"/><path class="inserted" d="${line(curves[1])}"/>
    <text x="11" y="12" text-anchor="end">1</text><text x="11" y="74" text-anchor="end">0</text>
    <text x="16" y="84">0 %</text><text x="306" y="84" text-anchor="end">100 % of the pixels</text></svg><figcaption></figcaption>`;
  figure.querySelector('figcaption').textContent = 'Score while the most relevant pixels are removed (line, area ' +
    `${area(curves[0]).toFixed(2)}, less is better) or are shown first (dashed, ${area(curves[1]).toFixed(2)}, more is better).`;
}
