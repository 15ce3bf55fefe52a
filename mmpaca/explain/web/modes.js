// The three views: the map of an object, the clusters of a patch, the cluster of every patch. Each gives
// cells to lay over the picture and what is said beside it.

const PATCH_CLUSTERS = 5;  // clusters of a patch, each with its colour
const STRIP_CLUSTERS = 12;  // clusters listed otherwise
const CONTRAST_TOP = 2;  // colours of a contrast end at twice an even spread or above

const times = value => `${value < 10 ? value.toFixed(1).replace('.0', '') : Math.round(value)}×`;

// Ticks of a square root scale that ends at `top`.
function heatTicks(top, unit = '') {
  const ticks = [[0, '0'], [Math.sqrt(1 / top), `1×${unit}`], [1, times(top)]];
  if (top >= 12) ticks.splice(2, 0, [0.5, times(top / 4)]);
  return ticks;
}

const modes = {
  objects({scene, block, head, chosen, settings, usesDecided}) {
    if (chosen < 0)
      return {
        title: scene.detections.length ? 'No object chosen' : 'No objects',
        answer: scene.detections.length ? 'Click an object in the picture or in the list.' :
          'Patches and Clusters show what the network saw nevertheless.',
      };
    const found = scene.detections[chosen], all = objectMaps(scene, usesDecided ? null : block, head);
    const {grid, maps, cells} = all, map = maps[chosen], top = Math.max(LEAST_TOP, cells * largest(map));
    const [share, area] = insideBox(scene, all, chosen), [sentence, specific] = specificity(all, chosen);
    const heads = head < 0 ? 'mean of all heads' : `head ${head + 1}`;
    const what = usesDecided ? 'This is what decided' : `This is where it attends (${block.title.toLowerCase()}, ${heads})`;
    const whole = area > 0.99 ? '' : `: ${percent(share)} of the map is inside its box, which is ${percent(area)} of the image`;
    const shown = {
      grid, smooth: usesDecided, title: `${found.name} ${found.score.toFixed(2)}`,
      answer: `${what}${whole}.`, note: sentence, warn: !specific, curves: usesDecided ? found.curves : null,
      clustersTitle: `Clusters that it attends to most, ${block.title.toLowerCase()}`,
      clusters: strongest(attentionOf(block, coverageOf(block, chosen), head), STRIP_CLUSTERS),
    };
    if (!settings.contrast || maps.length < 2)
      return {
        ...shown, cells: heatCanvas(grid, map, cells, top), bar: heatBar(top), ticks: heatTicks(top, ' even'),
        caption: 'Relevance of a place, as a multiple of an even spread over the image.',
      };
    const others = othersMean(all, chosen), end = Math.max(CONTRAST_TOP, cells * largest(map.map((v, k) => Math.abs(v - others[k]))));
    return {
      ...shown, cells: cellCanvas(grid, n => contrastColour(cells * (map[n] - others[n]) / end)), bar: contrastBar,
      ticks: [[0, `−${times(end)}`], [0.5, 'the same'], [1, `+${times(end)}`]],
      caption: 'More (yellow) or less (blue) relevant than for the other objects on average, in multiples of an even spread.',
    };
  },

  patches({scene, block, head, patch}) {
    const kind = block.isHead ? 'classes' : 'clusters', heads = head < 0 ? 'mean of all heads' : `head ${head + 1}`;
    const where = block.isHead ? block.title : `${block.title}, ${heads}`;
    if (!patch)
      return {title: where, answer: `Point at a patch, or tap one, to see the ${kind} that it attends to.`};
    const clusters = strongest(attentionOf(block, patchWeights(block, patch), head), PATCH_CLUSTERS);
    const maps = clusters.map(({cluster}) => clusterMap(block, cluster)), ends = maps.map(map => largest(map) || 1);
    const names = clusters.map(({cluster, share}) => `${block.names[cluster].replace(/^cluster /, '')} (${percent(share)})`);
    const found = block.predicted[patch[0] * block.columns + patch[1]];
    const predicted = found >= 0 ? ` Predicted: ${scene.detections[found].name}.` : '';
    return {
      grid: block, title: where,
      answer: `The patch in row ${patch[0] + 1}, column ${patch[1] + 1} attends to ${kind} ${names.join(', ')}.${predicted}`,
      note: `Each of the ${kind} has its colour where it takes its content from.`,
      clustersTitle: `Its strongest ${kind}`,
      clusters: clusters.map((one, k) => ({...one, colour: COLOURS.palette[k]})),
      cells: cellCanvas(block, n => {
        const values = maps.map((map, k) => map[n] / ends[k]), best = values.indexOf(Math.max(...values));
        return [...COLOURS.palette[best], values[best] ** 0.7];
      }),
    };
  },

  clusters({scene, block, cluster}) {
    const kind = block.isHead ? 'class' : 'cluster';
    const colour = Array(block.clusters);
    block.order.forEach((m, rank) => { colour[m] = COLOURS.palette[rank]; });
    const shown = {
      grid: block, clustersTitle: `Those that receive most attention, of ${block.clusters}`,
      clusters: block.order.slice(0, STRIP_CLUSTERS).map(m => ({cluster: m, share: block.received[m], colour: colour[m]})),
    };
    if (cluster >= 0) {
      const map = clusterMap(block, cluster), cells = shownCells(scene, block), top = Math.max(LEAST_TOP, cells * largest(map));
      const follows = block.follows[cluster];
      return {
        ...shown, title: `${block.title}: ${block.names[cluster]}`,
        answer: `This is where the ${kind} takes its content from. It receives ${percent(block.received[cluster], 1)} of all attention.`,
        note: follows ? `It follows ${follows[0]}: ${percent(follows[1])} of it is there.` : '',
        cells: heatCanvas(block, map, cells, top), bar: heatBar(top), ticks: heatTicks(top, ' even'),
        caption: 'Weight of a patch in the cluster, as a multiple of an even spread.',
      };
    }
    block.order.forEach((m, rank) => { colour[m] = colour[m] || Array(3).fill(70 + 37 * rank % 120); });
    return {
      ...shown, title: block.title, answer: `The strongest ${kind} of each patch.`,
      note: 'The seven that receive most attention have colours, the others are grey.',
      cells: cellCanvas(block, n => [...colour[block.labels[n]], 0.75]),
    };
  },
};
