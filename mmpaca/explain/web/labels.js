// Names beside the boxes. No label covers another; those without a place are in the list alone.

const LABELLED = 20;  // objects, at most, that all have their names on the image

const overlaps = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];

// Left, top, right, bottom for a label of a size: outside the box if possible, inside the bounds and
// clear of those placed before; null if there is no such place.
function placeLabel([width, height], [left, top, right, bottom], [boundsX, boundsY], placed) {
  const corners = [
    [left, top - height], [right - width, top - height], [left, bottom], [right - width, bottom],
    [left, top], [right - width, bottom - height], [left - width, top], [right, top],
  ];
  for (const [x, y] of corners) {
    const at = [Math.max(0, Math.min(x, boundsX - width)), Math.max(0, Math.min(y, boundsY - height))];
    const place = [...at, at[0] + width, at[1] + height];
    if (!placed.some(other => overlaps(place, other))) return place;
  }
  return null;
}

function coversMost(scene, i) {
  const [left, top, right, bottom] = scene.detections[i].box;
  return (right - left) * (bottom - top) > 0.4 * scene.width * scene.height;
}

// Put labels over a canvas of `scale` screen pixels per pixel of the image.
function placeLabels(box, scene, scale, chosen, hovered, visible, choose) {
  const bounds = [scene.width * scale, scene.height * scale], placed = [];
  const many = scene.detections.length > LABELLED;
  const order = [...scene.detections.keys()].sort((i, j) => (j === chosen) - (i === chosen) || (j === hovered) - (i === hovered));
  box.replaceChildren();
  if (!visible) return;
  for (const i of order) {
    if (many && i !== chosen && i !== hovered) continue;
    const found = scene.detections[i], label = document.createElement('button');
    label.type = 'button';
    label.tabIndex = -1;  // the list has the same for keys
    label.className = i === chosen ? 'chosen' : '';
    label.textContent = `${found.name} ${found.score.toFixed(2)}`;
    const colour = i === chosen ? [255, 255, 255] : paletteOf(found.label);
    Object.assign(label.style, {background: rgb(colour), color: readableOn(colour)});
    label.addEventListener('click', () => choose(i));
    box.append(label);
    const size = [label.offsetWidth, label.offsetHeight];
    const place = placeLabel(size, found.box.map(v => v * scale), bounds, placed);
    if (place) {
      placed.push(place);
      if (i === chosen && !coversMost(scene, i)) placed.push(found.box.map(v => v * scale));  // its map stays visible
      Object.assign(label.style, {left: `${place[0]}px`, top: `${place[1]}px`});
    } else label.remove();
  }
}
