// A layered drawing of a directed graph (Sugiyama, Tagawa, Toda 1981): layers by longest path,
// order within a layer by the barycentre of the neighbours, in a few sweeps down and up. A cycle,
// which events may contain, is cut at the edge that closes it.

const SWEEPS = 4;

/**
 * Place boxes. `boxes`: [{key, parents: [key]}]; parents that are not boxes are ignored.
 * Returns {places: Map(key → {layer, index}), edges: [[from, to]], layers, widest}.
 */
export function layOut(boxes) {
  const byKey = new Map(boxes.map((box) => [box.key, box]));
  const parents = new Map(boxes.map((box) => [box.key, [...new Set(box.parents)].filter((key) => byKey.has(key) && key !== box.key)]));
  const layerOf = findLayers(boxes, parents);
  const edges = boxes.flatMap((box) => parents.get(box.key).filter((key) => layerOf.get(key) < layerOf.get(box.key)).map((key) => [key, box.key]));
  const layers = [];
  for (const box of boxes) (layers[layerOf.get(box.key)] ??= []).push(box.key);
  order(layers, edges);
  const places = new Map();
  layers.forEach((keys, layer) => keys.forEach((key, index) => places.set(key, { layer, index })));
  return { places, edges, layers: layers.length, widest: Math.max(0, ...layers.map((keys) => keys.length)), sizes: layers.map((keys) => keys.length) };
}

function findLayers(boxes, parents) {
  const layerOf = new Map();
  const onPath = new Set();
  for (const { key: first } of boxes) {
    const stack = [first];
    while (stack.length) {
      const key = stack.at(-1);
      if (layerOf.has(key)) { stack.pop(); continue; }
      onPath.add(key);
      const open = parents.get(key).filter((parent) => !layerOf.has(parent) && !onPath.has(parent));
      if (open.length) { stack.push(...open); continue; }
      layerOf.set(key, 1 + Math.max(-1, ...parents.get(key).map((parent) => layerOf.get(parent) ?? -1)));
      onPath.delete(key);
      stack.pop();
    }
  }
  return layerOf;
}

function order(layers, edges) {
  const above = neighbours(edges, ([from, to]) => [to, from]);
  const below = neighbours(edges, ([from, to]) => [from, to]);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const isDown = sweep % 2 === 0;
    const sequence = isDown ? layers.slice(1) : layers.slice(0, -1).reverse();
    const position = new Map();
    for (const keys of layers) keys.forEach((key, index) => position.set(key, index / keys.length));
    for (const keys of sequence) {
      const weight = new Map(keys.map((key) => [key, mean((isDown ? above : below).get(key), position) ?? position.get(key)]));
      keys.sort((a, b) => weight.get(a) - weight.get(b));
      keys.forEach((key, index) => position.set(key, index / keys.length));
    }
  }
}

function neighbours(edges, ends) {
  const found = new Map();
  for (const edge of edges) {
    const [key, other] = ends(edge);
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(other);
  }
  return found;
}

const mean = (keys, position) => (keys?.length ? keys.reduce((sum, key) => sum + position.get(key), 0) / keys.length : null);
