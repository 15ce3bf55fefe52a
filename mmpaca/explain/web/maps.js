// What the maps say: attention, relevance, and how far the map of one object differs from the others'.

const largest = values => values.reduce((a, b) => Math.max(a, b), 0);
const percent = (value, digits = 0) => `${(100 * value).toFixed(digits)} %`;

// Below this distance from the mean map of the others a map is not specific.
const SPECIFIC = 0.1;
// Colours end at four times an even spread or above, so that a flat map looks flat.
const LEAST_TOP = 4;

// Attention of weighted cells to the clusters, over one head or (-1) the mean of all: (M).
function attentionOf(block, weights, head) {
  const heads = head < 0 ? [...Array(block.heads).keys()] : [head];
  const cells = block.rows * block.columns, out = new Float32Array(block.clusters);
  let total = 0;
  for (let n = 0; n < cells; n++) {
    if (!weights[n]) continue;
    total += weights[n] * heads.length;
    for (const h of heads) {
      const start = (h * cells + n) * block.clusters;
      for (let m = 0; m < block.clusters; m++) out[m] += weights[n] * block.attention[start + m];
    }
  }
  return out.map(v => v / (total || 1));
}

// Rows of A Z: how much each cell counts for attention to the clusters.
function relevance(block, shares) {
  const cells = block.rows * block.columns, out = new Float32Array(cells);
  for (let m = 0; m < block.clusters; m++)
    for (let n = 0; n < cells; n++) out[n] += shares[m] * block.assignment[m * cells + n];
  return out;
}

function clusterMap(block, cluster) {
  const cells = block.rows * block.columns;
  return block.assignment.subarray(cluster * cells, (cluster + 1) * cells);
}

function coverageOf(block, i) {
  const cells = block.rows * block.columns;
  return block.coverage.subarray(i * cells, (i + 1) * cells);
}

function patchWeights(block, [row, column]) {
  const weights = new Float32Array(block.rows * block.columns);
  weights[row * block.columns + column] = 1;
  return weights;
}

// The strongest clusters, [{cluster, share}], by their share of attention.
function strongest(shares, count) {
  return [...shares.keys()].sort((i, j) => shares[j] - shares[i]).slice(0, count)
    .map(cluster => ({cluster, share: shares[cluster]}));
}

// Cells that show the image; those of padding alone do not.
function shownCells(scene, {rows, columns, cell: [left, top, width, height]}) {
  let count = 0;
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++) {
      const x = left + (c + 0.5) * width, y = top + (r + 0.5) * height;
      if (x > 0 && y > 0 && x < scene.width && y < scene.height) count++;
    }
  return count;
}

// Maps of all detections and their mean. In `grid` is where the cells are; values times `cells` are
// multiples of an even spread.
function objectMaps(scene, block, head) {
  const key = block ? `${block.key}:${head}` : 'decided';
  if (!scene.cache.has(key)) {
    const grid = block || scene.decided, n = grid.rows * grid.columns;
    const maps = block ? scene.detections.map((_, i) => relevance(block, attentionOf(block, coverageOf(block, i), head))) :
      Array.from({length: grid.count}, (_, i) => grid.maps.subarray(i * n, (i + 1) * n));
    const mean = new Float32Array(n);
    for (const map of maps) map.forEach((v, k) => { mean[k] += v / maps.length; });
    scene.cache.set(key, {grid, maps, mean, cells: shownCells(scene, grid)});
  }
  return scene.cache.get(key);
}

// Total variation distance of two distributions, 0..1.
function distance(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += Math.abs(a[i] - b[i]);
  return sum / 2;
}

// Mean map of the other objects.
function othersMean({maps, mean}, i) {
  return mean.map((v, k) => (v * maps.length - maps[i][k]) / (maps.length - 1));
}

// Whether a map says something about its object: [sentence, false if it does not].
function specificity({maps, mean, cells}, i) {
  if (!largest(maps[i])) return ['The map is empty: no place speaks for this object.', false];
  if (maps.length > 1) {
    const differs = distance(maps[i], othersMean({maps, mean}, i));
    return differs < SPECIFIC ?
      [`Not specific: the map is much the same for every object (${percent(differs)} differs from the mean of the others).`, false] :
      [`Specific to this object: ${percent(differs)} of the map differs from the mean of the others.`, true];
  }
  const even = new Float32Array(mean.length).fill(1 / cells), differs = distance(maps[i], even);
  return differs < SPECIFIC ? ['Not specific: the map is spread evenly over the image.', false] : ['', true];
}

// Share of a map that lies in a detection's box, and the share of the image that the box is.
function insideBox(scene, {grid, maps}, i) {
  const [x0, y0, x1, y1] = scene.detections[i].box, [left, top, width, height] = grid.cell;
  const overlap = (a0, a1, b0, b1) => Math.max(0, Math.min(a1, b1) - Math.max(a0, b0));
  let share = 0;
  for (let r = 0; r < grid.rows; r++)
    for (let c = 0; c < grid.columns; c++)
      share += maps[i][r * grid.columns + c] *
        overlap(left + c * width, left + (c + 1) * width, x0, x1) *
        overlap(top + r * height, top + (r + 1) * height, y0, y1) / (width * height);
  const area = overlap(0, scene.width, x0, x1) * overlap(0, scene.height, y0, y1) / (scene.width * scene.height);
  return [share, area];
}
