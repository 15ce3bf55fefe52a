// Data of an image: text in the page to numbers.
const $ = id => document.getElementById(id);
const COLOURS = /* COLOURS */null;

async function inflate(text) {
  const packed = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Bytes to distributions of the given length: squared, each divided by its sum.
function distributions(bytes, length) {
  const values = new Float32Array(bytes.length);
  for (let start = 0; start < bytes.length; start += length) {
    let sum = 0;
    for (let i = start; i < start + length; i++) sum += values[i] = bytes[i] * bytes[i];
    for (let i = start; i < start + length; i++) values[i] /= sum || 1;
  }
  return values;
}

async function readBlock(block) {
  const n = block.rows * block.columns;
  block.key = `${block.stage}.${block.block}`;
  block.title = block.isHead ? 'Segmentation head' : `Stage ${block.stage}, block ${block.block}`;
  block.assignment = distributions(await inflate(block.assignment), n);               // (M, n)
  block.attention = distributions(await inflate(block.attention), block.clusters);    // (heads, n, M)
  block.coverage = block.coverage ? distributions(await inflate(block.coverage), n) : new Float32Array(0);
  block.labels = new Uint16Array((await inflate(block.labels)).buffer);               // (n)
}

// Scenes that were read, by the script element with their data.
const read = new Map();

async function readScene(script) {
  if (!read.has(script)) read.set(script, decodeScene(script));
  return read.get(script);
}

async function decodeScene(script) {
  if (!('DecompressionStream' in window)) throw new Error('This page needs a browser of 2023 or newer.');
  const scene = JSON.parse(script.textContent);
  scene.bytes = script.textContent.length;
  for (const block of scene.blocks) await readBlock(block);
  if (scene.decided) {
    const {rows, columns} = scene.decided;
    scene.decided.maps = distributions(await inflate(scene.decided.maps), rows * columns);  // (D, n)
    scene.decided.cell = [0, 0, scene.width / columns, scene.height / rows];
  }
  scene.picture = new Image();
  scene.picture.src = scene.image;
  await scene.picture.decode();
  scene.image = null;
  scene.cache = new Map();
  for (const found of scene.detections) {
    found.path = new Path2D();
    for (const points of found.outline) {
      found.path.moveTo(points[0], points[1]);
      for (let k = 2; k < points.length; k += 2) found.path.lineTo(points[k], points[k + 1]);
      found.path.closePath();
    }
  }
  return scene;
}
