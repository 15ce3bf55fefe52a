// One image with what is said about it; two of them when images or models are compared.

const LARGEST = 4;  // times that small images are enlarged, and more only up to
const SMALLEST = 480;  // screen pixels, so that labels have room

class Viewer {
  // `settings` are common to all viewers. `show(mode)` draws all viewers in a mode; `linked(this, act)`
  // calls act with those of the same image.
  constructor(scene, settings, show, linked) {
    Object.assign(this, {scene, settings, show, linked});
    Object.assign(this, {chosen: scene.detections.length ? 0 : -1, hovered: -1, patch: null, cluster: -1});
    this.element = $('viewer').content.firstElementChild.cloneNode(true);
    this.view = this.find('.stage canvas');
    this.find('.model').textContent = scene.model;
    this.find('.model').hidden = !scene.model;
    this.find('.left-out').textContent = scene.leftOut.length ?
      `${scene.leftOut.length > 1 ? 'Stages' : 'Stage'} ${scene.leftOut.join(', ')} without clusters: patches attend to patches.` : '';
    this.find('.objects-title').hidden = scene.detections.length < 2;
    this.find('.objects').hidden = scene.detections.length < 2;
    this.find('.objects').replaceChildren(...scene.detections.map((found, i) => this.objectItem(found, i)));
    this.listen();
  }

  find(selector) { return this.element.querySelector(selector); }

  objectItem(found, i) {
    const item = document.createElement('li'), button = document.createElement('button');
    const dot = document.createElement('i');
    dot.style.background = rgb(paletteOf(found.label));
    button.type = 'button';
    button.append(dot, `${found.name} ${found.score.toFixed(2)}`);
    button.addEventListener('click', () => this.choose(i));
    item.append(button);
    return item;
  }

  // The block whose clusters are shown. Of the whole network's map, and where there is no such block as
  // in the other image, it is the last one of the backbone.
  get block() {
    const {blocks} = this.scene, last = blocks.filter(block => !block.isHead).at(-1) || blocks.at(-1);
    return blocks.find(block => block.key === this.settings.layer) || last;
  }

  get head() { return this.settings.head < this.block.heads ? this.settings.head : -1; }

  // Maps of what decided are there for the surest objects only.
  get usesDecided() {
    const {decided} = this.scene;
    return this.settings.layer === 'decided' && Boolean(decided) && this.chosen < decided.count;
  }

  // Choose an object, and the same one in the other viewers.
  choose(i) {
    this.chosen = i;
    if (i >= 0) this.linked(this, other => other.chooseLike(this.scene.detections[i]));
    this.show('objects');
  }

  chooseLike(found) {
    const overlap = ([a, b, c, d], [e, f, g, h]) => {
      const both = Math.max(0, Math.min(c, g) - Math.max(a, e)) * Math.max(0, Math.min(d, h) - Math.max(b, f));
      return both / ((c - a) * (d - b) + (g - e) * (h - f) - both);
    };
    const ious = this.scene.detections.map(other => other.name === found.name ? overlap(found.box, other.box) : 0);
    const best = ious.indexOf(Math.max(...ious));
    this.chosen = ious[best] >= 0.3 ? best : -1;
  }

  chooseCluster(cluster) {
    this.cluster = this.settings.mode === 'clusters' && cluster === this.cluster ? -1 : cluster;
    this.settings.othersLayer = this.block.key;  // whose cluster it is
    this.show('clusters');
  }

  pointAt(patch) {
    if (String(patch) === String(this.patch)) return;
    this.patch = patch;
    this.linked(this, other => {
      const same = other.block.rows === this.block.rows && other.block.columns === this.block.columns;
      other.patch = same ? patch : null;
      other.draw();
    });
    this.draw();
  }

  // Lay the picture out within a size on the screen; the canvas has the pixels of the screen.
  fit(width, height) {
    const {scene, view} = this, most = Math.max(LARGEST, SMALLEST / Math.max(scene.width, scene.height));
    this.scale = Math.min(width / scene.width, height / scene.height, most);
    const pixel = window.devicePixelRatio || 1, size = [scene.width, scene.height].map(v => Math.round(v * this.scale));
    [view.style.width, view.style.height] = size.map(v => `${v}px`);
    [view.width, view.height] = size.map(v => Math.round(v * pixel));
    this.base = null;
    this.draw();
  }

  draw() {
    const {scene, settings, view, chosen, hovered} = this, context = view.getContext('2d');
    const pixel = view.width / (scene.width * this.scale), objects = settings.mode === 'objects';
    const grey = settings.opacity > 0;
    if (!this.base || this.base.grey !== grey) {
      this.base = Object.assign(document.createElement('canvas'), {width: view.width, height: view.height, grey});
      drawPicture(this.base.getContext('2d'), scene, grey);
    }
    context.globalAlpha = 1;
    context.drawImage(this.base, 0, 0);
    const shown = modes[settings.mode](this);
    if (shown.cells) drawCells(context, scene, shown.grid, shown.cells, settings.opacity, Boolean(shown.smooth));
    if (settings.outlines)
      scene.detections.forEach((found, i) => {
        const line = objects && i === hovered ? 3 : 1.5;
        if (!objects || i !== chosen) drawOutline(context, scene, found, objects ? rgb(paletteOf(found.label)) : '#fff', line * pixel);
      });
    if (settings.outlines && objects && chosen >= 0 && !coversAll(scene, chosen)) drawOutline(context, scene, scene.detections[chosen], '#fff', 2.5 * pixel);
    if (settings.mode === 'patches' && this.patch) drawFrame(context, scene, this.block, this.patch, pixel);
    placeLabels(this.find('.labels'), scene, this.scale, chosen, hovered, objects && settings.outlines, i => this.choose(i));
    view.setAttribute('aria-label', `${scene.name}. ${KEYS[settings.mode]}`);
    this.say(shown);
  }

  say({title, answer, note, warn, bar, ticks, caption, curves, clustersTitle, clusters}) {
    this.find('.title').textContent = title;
    // Screen readers read the answer aloud when it changes.
    if (this.find('.answer').textContent !== answer) this.find('.answer').textContent = answer;
    this.find('.note').textContent = note || '';
    this.find('.note').classList.toggle('warn', Boolean(warn));
    showLegend(this.find('.legend'), bar, ticks, caption);
    showCurves(this.find('.curves'), curves);
    this.find('.clusters-title').textContent = clustersTitle || '';
    const list = this.find('.clusters'), focused = [...list.children].findIndex(item => item.contains(document.activeElement));
    list.replaceChildren(...(clusters || []).map(one => this.clusterItem(one)));
    if (focused >= 0) list.children[focused]?.firstElementChild.focus();
    [...this.find('.objects').querySelectorAll('button')].forEach((button, i) =>
      button.setAttribute('aria-pressed', this.settings.mode === 'objects' && i === this.chosen));
  }

  clusterItem({cluster, share, colour}) {
    const {scene, block, settings} = this, item = document.createElement('li'), button = document.createElement('button');
    const small = this.clusterPicture(cluster), name = document.createElement('b'), text = document.createElement('small');
    if (colour) small.style.borderColor = rgb(colour);
    name.textContent = block.names[cluster];
    const follows = block.follows[cluster];
    text.textContent = `${percent(share, share < 0.1 ? 1 : 0)}${follows ? `, follows ${follows[0]}` : ''}`;
    button.type = 'button';
    button.setAttribute('aria-pressed', settings.mode === 'clusters' && cluster === this.cluster);
    button.append(small, name, text);
    button.addEventListener('click', () => this.chooseCluster(cluster));
    item.append(button);
    return item;
  }

  // A thumbnail of the picture under the map of a cluster, kept for the next time.
  clusterPicture(cluster) {
    const {scene, block} = this, key = `${block.key} ${cluster}`;
    if (!scene.cache.has(key)) {
      const canvas = document.createElement('canvas'), shrink = 160 / Math.max(scene.width, scene.height);
      canvas.width = Math.max(1, Math.round(scene.width * shrink));
      canvas.height = Math.max(1, Math.round(scene.height * shrink));
      const context = canvas.getContext('2d'), map = clusterMap(block, cluster), cells = shownCells(scene, block);
      drawPicture(context, scene, true);
      drawCells(context, scene, block, heatCanvas(block, map, cells, Math.max(LEAST_TOP, cells * largest(map))), 0.9, false);
      scene.cache.set(key, canvas);
    }
    return scene.cache.get(key);
  }

  listen() {
    const {view} = this;
    view.addEventListener('pointermove', event => {
      const at = this.position(event), {mode} = this.settings;
      if (mode === 'patches') this.pointAt(this.patchAt(...at));
      if (mode !== 'objects') return;
      const hovered = this.objectAt(...at);
      if (hovered !== this.hovered) Object.assign(this, {hovered}).draw();
    });
    view.addEventListener('pointerleave', event => {
      if (event.pointerType !== 'mouse') return;
      if (this.settings.mode === 'patches') this.pointAt(null);
      if (this.hovered >= 0) Object.assign(this, {hovered: -1}).draw();
    });
    view.addEventListener('click', event => this.takeAt(...this.position(event)));
    view.addEventListener('keydown', event => {
      if (this.press(event.key)) event.preventDefault();
    });
  }

  takeAt(x, y) {
    const {mode} = this.settings, patch = this.patchAt(x, y);
    if (mode === 'objects') this.choose(this.objectAt(x, y));
    else if (mode === 'patches') this.pointAt(patch);
    else if (patch) this.chooseCluster(this.block.labels[patch[0] * this.block.columns + patch[1]]);
  }

  // What a key does; true if anything.
  press(key) {
    const {scene, settings, block, patch} = this;
    const [rows, columns] = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[key] || [0, 0];
    const step = rows + columns;
    if (key === 'Escape') {
      Object.assign(this, {chosen: -1, patch: null, cluster: -1});
      this.show(settings.mode);
    } else if (step && settings.mode === 'objects' && scene.detections.length) {
      const count = scene.detections.length;
      this.choose(this.chosen < 0 ? 0 : (this.chosen + step + count) % count);
    } else if (step && settings.mode === 'clusters') {
      const {order} = block, at = order.indexOf(this.cluster);
      this.cluster = order[at < 0 ? 0 : (at + step + order.length) % order.length];
      this.show('clusters');
    } else if (step && settings.mode === 'patches') {
      const next = patch ? [patch[0] + rows, patch[1] + columns] : [block.rows >> 1, block.columns >> 1];
      // Patches of padding alone are not on the image.
      if (!patch || this.patchAt(...this.corner(next))) this.pointAt(next);
    } else if ((key === 'Enter' || key === ' ') && settings.mode === 'patches' && patch) {
      this.choose(this.objectAt(...this.corner(patch, 0.5)));
    } else return false;
    return true;
  }

  // Point of a patch in pixels of the image: by default just inside its corner.
  corner([row, column], inside = 0.01) {
    const [left, top, width, height] = this.block.cell;
    return [left + (column + inside) * width, top + (row + inside) * height];
  }

  // Position of the pointer in pixels of the embedded image.
  position(event) {
    const box = this.view.getBoundingClientRect();
    return [(event.clientX - box.left) / this.scale, (event.clientY - box.top) / this.scale];
  }

  patchAt(x, y) {
    const {cell: [left, top, width, height], rows, columns} = this.block, {scene} = this;
    const row = Math.floor((y - top) / height), column = Math.floor((x - left) / width);
    const inside = row >= 0 && row < rows && column >= 0 && column < columns &&
      x >= 0 && y >= 0 && x < scene.width && y < scene.height;
    return inside ? [row, column] : null;
  }

  // The smallest object whose mask is at a point, or else whose box is; -1 for none.
  objectAt(x, y) {
    const {detections, segmented} = this.scene, context = this.view.getContext('2d');
    context.save();
    context.resetTransform();
    const area = ({box}) => (box[2] - box[0]) * (box[3] - box[1]);
    const inBox = ({box}) => x >= box[0] && x < box[2] && y >= box[1] && y < box[3];
    const onMask = detections.filter(found => found.outline.length && context.isPointInPath(found.path, x, y, 'evenodd'));
    const hits = onMask.length || segmented ? onMask : detections.filter(inBox);
    context.restore();
    return hits.length ? detections.indexOf(hits.reduce((a, b) => area(b) < area(a) ? b : a)) : -1;
  }
}

const KEYS = {
  objects: 'Arrow keys choose the next object, Escape none.',
  patches: 'Arrow keys move from patch to patch, Enter takes the object there, Escape leaves.',
  clusters: 'Arrow keys choose the next cluster, Escape shows all.',
};

// A classifier's only "object" is the entire image.
function coversAll(scene, i) {
  const [left, top, right, bottom] = scene.detections[i].box;
  return !scene.segmented && left <= 0 && top <= 0 && right >= scene.width && bottom >= scene.height;
}
