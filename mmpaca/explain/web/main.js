// Controls, and which images are shown.

const WIDE = 832;  // screen pixels from which on the text is beside the image, as in the style
const SIDE = 336;  // screen pixels of the text, at least
const settings = {mode: 'objects', layer: 'decided', head: -1, contrast: false, outlines: true, opacity: 0.75,
  objectsLayer: 'decided', othersLayer: ''};
const scripts = [...document.querySelectorAll('script.scene')];
let viewers = [], current = 0, paper = 0;

function options(select, values, chosen) {
  select.replaceChildren(...values.map(([value, text]) => new Option(text, value)));
  if (values.some(([value]) => String(value) === String(chosen))) select.value = chosen;
}

// Images are told apart by their place: two folders may have images of one name. The models of one
// image follow each other.
const groups = scripts.reduce((all, script) => {
  const last = all.at(-1);
  if (last && script.dataset.model && last[0].dataset.name === script.dataset.name &&
      !last.some(other => other.dataset.model === script.dataset.model)) last.push(script);
  else all.push([script]);
  return all;
}, []);

function sentence() {
  const decided = viewers[0].usesDecided, {segmented, detections} = viewers[0].scene;
  const thing = segmented ? 'a region' : 'an object';
  if (settings.mode === 'objects' && !detections.length) return 'Nothing was detected in this image.';
  return {
    objects: detections.length === 1 && coversAll(viewers[0].scene, 0) ?
      (decided ? 'This is what decided.' : 'This is where the prediction attends.') :
      `Click ${thing}: this is ${decided ? 'what decided' : 'where it attends'}.`,
    patches: 'Point at a patch: these are the clusters that it attends to.',
    clusters: 'Every patch has the colour of its strongest cluster. Click one to see all of it.',
  }[settings.mode];
}

function layers() {
  const {scene} = viewers[0], blocks = scene.blocks.map(block => [block.key, block.title]);
  const attention = settings.mode === 'objects' ? blocks.map(([key, title]) => [key, `attention of ${title.toLowerCase()}`]) : blocks;
  options($('layer'), scene.decided && settings.mode === 'objects' ? [['decided', 'what decided'], ...attention] : attention);
  // What is shown: another image may not have the layer that was chosen.
  $('layer').value = settings.mode === 'objects' && viewers[0].usesDecided ? 'decided' : viewers[0].block.key;
  const heads = [[-1, 'mean of all'], ...Array.from({length: viewers[0].block.heads}, (_, h) => [h, String(h + 1)])];
  options($('head'), heads, settings.head);
  settings.head = Number($('head').value);
}

function show(mode) {
  // The whole network has no patches: the other views show the last stage, and coming back is as before.
  if (mode !== settings.mode) settings[`${settings.mode === 'objects' ? 'objects' : 'others'}Layer`] = settings.layer;
  if (mode !== settings.mode) settings.layer = mode === 'objects' ? settings.objectsLayer : settings.othersLayer || viewers[0].block.key;
  settings.mode = mode;
  document.querySelector(`#modes input[value="${mode}"]`).checked = true;
  refresh();
  for (const viewer of viewers) viewer.draw();
}

// What the controls offer.
function refresh() {
  layers();
  $('for-head').hidden = viewers[0].usesDecided || viewers[0].block.heads < 2 || settings.mode === 'clusters';
  $('for-contrast').hidden = settings.mode !== 'objects' || !viewers.some(viewer => viewer.scene.detections.length > 1);
  $('sentence').textContent = sentence();
}

function layOut() {
  if (!viewers.length) return;
  const beside = viewers.length > 1, width = paper || $('viewers').clientWidth;
  const below = paper ? 0.6 * paper : Math.max(320, innerHeight - viewers[0].element.offsetTop - (beside ? 190 : 16));
  const gap = innerWidth <= WIDE ? 10 : 24;
  for (const viewer of viewers)
    viewer.fit(Math.max(160, beside ? (width - gap) / 2 : width - (innerWidth > WIDE && !paper ? SIDE : 0)),
      innerWidth > WIDE ? below : Math.max(240, 0.75 * innerHeight));
}

function linked(viewer, act) {
  for (const other of viewers) if (other !== viewer && other.scene.name === viewer.scene.name) act(other);
}

async function open(place) {
  current = place;
  const group = groups[place], other = $('compare').value;
  const chosen = other && Number(other) !== place ? [group[0], groups[Number(other)][0]] : group;
  const scenes = await Promise.all(chosen.map(readScene));
  if (current !== place) return;  // another image was chosen meanwhile
  viewers = scenes.map(scene => new Viewer(scene, settings, show, linked));
  if (scenes.length > 1 && scenes[0].name !== scenes[1].name)
    viewers.forEach(viewer => Object.assign(viewer.find('.model'), {textContent: viewer.scene.name, hidden: false}));
  $('viewers').classList.toggle('beside', viewers.length > 1);
  $('viewers').replaceChildren(...viewers.map(viewer => viewer.element));
  if (viewers[0].chosen >= 0)
    linked(viewers[0], viewer => viewer.chooseLike(viewers[0].scene.detections[viewers[0].chosen]));
  [...$('film').children].forEach((button, i) => button.setAttribute('aria-pressed', i === place));
  refresh();
  layOut();
  const total = new Blob(scripts.map(script => script.textContent)).size;
  $('about').textContent = scenes.map(scene => {
    const cells = scene.blocks.map(block => `${block.rows} x ${block.columns}`);
    return `${scene.model || scene.name}: ${scene.width} x ${scene.height} pixels, maps of ${[...new Set(cells)].join(', ')} cells, ` +
      `${(scene.bytes / 1e6).toFixed(2)} MB.`;
  }).join(' ') + ` ${groups.length} image${groups.length > 1 ? 's' : ''}, ${(total / 1e6).toFixed(1)} MB in all; nothing is loaded from elsewhere.`;
  document.title = `${scenes[0].name}: what decided`;
  document.body.dataset.ready = `${scenes.map(scene => scene.name).join(' | ')}`;
}

function fillFilm() {
  $('film').hidden = groups.length < 2;
  $('for-compare').hidden = groups.length < 2;
  options($('compare'), [['', 'nothing'], ...groups.map((group, i) => [i, group[0].dataset.name])]);
  $('film').replaceChildren(...groups.map(([script], i) => {
    const button = document.createElement('button'), name = document.createElement('span');
    const small = Object.assign(new Image(), {src: script.dataset.thumbnail, alt: '', loading: 'lazy'});
    const whole = script.dataset.name, stem = whole.replace(/\.\w+$/, '');
    name.textContent = stem.length > 10 ? `…${stem.slice(-8)}` : stem;  // names of a folder often begin alike
    button.type = 'button';
    button.title = whole;
    button.append(small, name);
    button.addEventListener('click', () => open(i));
    return button;
  }));
}

$('controls').addEventListener('submit', event => event.preventDefault());
$('modes').addEventListener('change', event => show(event.target.value));
$('layer').addEventListener('change', () => { settings.layer = $('layer').value; viewers.forEach(viewer => { viewer.patch = null; viewer.cluster = -1; }); show(settings.mode); });
$('head').addEventListener('change', () => { settings.head = Number($('head').value); show(settings.mode); });
for (const name of ['contrast', 'outlines'])
  $(name).addEventListener('change', () => { settings[name] = $(name).checked; show(settings.mode); });
$('opacity').addEventListener('input', () => { settings.opacity = Number($('opacity').value); show(settings.mode); });
$('compare').addEventListener('change', () => open(current));
window.addEventListener('resize', layOut);
window.addEventListener('beforeprint', () => { paper = 680; layOut(); });
window.addEventListener('afterprint', () => { paper = 0; layOut(); });
fillFilm();
if (groups.length) open(0).catch(error => { $('sentence').textContent = error.message; });
else $('sentence').textContent = 'There are no images on this page.';
