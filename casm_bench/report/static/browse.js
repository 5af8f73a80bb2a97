"use strict";
// The image browser. A set of pictures is a script of its own, loaded when it is chosen, for a
// page that was opened from disk may not fetch anything else.

const $ = (id) => document.getElementById(id);
const sets = window.casmBenchSets;
const loaded = new Map(); // sets of pictures by number
const images = new Map(); // by file
const state = { set: 0, order: [], at: 0, threshold: null, hidden: new Set() };

// --- maps, masks and boxes ---------------------------------------------------------------------

function bytes(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** The map of a picture on the frame's grid, 0 to 255, as the method's maps are enlarged. */
function enlarge(method, index, size) {
  const [rows, columns] = method.grid;
  const small = bytes(method.masks[index]);
  const large = new Float32Array(size * size);
  const smooth = method.upsample === "bilinear";
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      large[y * size + x] = smooth
        ? bilinear(small, rows, columns, ((y + 0.5) * rows) / size - 0.5, ((x + 0.5) * columns) / size - 0.5)
        : small[Math.floor((y * rows) / size) * columns + Math.floor((x * columns) / size)];
    }
  }
  return large;
}

function bilinear(grid, rows, columns, y, x) {
  y = Math.min(Math.max(y, 0), rows - 1);
  x = Math.min(Math.max(x, 0), columns - 1);
  const [top, left] = [Math.floor(y), Math.floor(x)];
  const [bottom, right] = [Math.min(top + 1, rows - 1), Math.min(left + 1, columns - 1)];
  const [down, across] = [y - top, x - left];
  return (
    (1 - down) * ((1 - across) * grid[top * columns + left] + across * grid[top * columns + right]) +
    down * ((1 - across) * grid[bottom * columns + left] + across * grid[bottom * columns + right])
  );
}

function ownMask(method, index, size) {
  const packed = bytes(method.binary[index]);
  return Uint8Array.from({ length: size * size }, (_, i) => (packed[i >> 3] >> (7 - (i & 7))) & 1);
}

/** Half-open box around the largest 4-connected component, or around everything.
 * Of an empty mask what the rule says: null, or the whole frame. */
function boxOf(mask, size, rule) {
  const seen = new Uint8Array(mask.length);
  let best = null;
  let bestArea = 0;
  let extent = null;
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || seen[start]) continue;
    const box = [size, size, 0, 0];
    const stack = [start];
    let area = 0;
    seen[start] = 1;
    while (stack.length) {
      const i = stack.pop();
      const [x, y] = [i % size, Math.floor(i / size)];
      area++;
      grow(box, [x, y, x + 1, y + 1]);
      for (const [ok, j] of [[x > 0, i - 1], [x < size - 1, i + 1], [y > 0, i - size], [y < size - 1, i + size]]) {
        if (ok && mask[j] && !seen[j]) {
          seen[j] = 1;
          stack.push(j);
        }
      }
    }
    if (area > bestArea) [best, bestArea] = [box, area];
    extent = extent ? grow(extent, box) : [...box];
  }
  if (!best && rule.empty === "full") return [0, 0, size, size];
  return rule.component === "all" ? extent : best;
}

function grow(box, other) {
  box[0] = Math.min(box[0], other[0]);
  box[1] = Math.min(box[1], other[1]);
  box[2] = Math.max(box[2], other[2]);
  box[3] = Math.max(box[3], other[3]);
  return box;
}

const area = (box) => Math.max(0, box[2] - box[0]) * Math.max(0, box[3] - box[1]);

function shared(a, b) {
  return area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
}

/** How much two predicted boxes agree, from 0 to 1; two methods that find nothing do. */
function agreement(a, b) {
  if (!a || !b) return 2; // not known: last
  const both = shared(a, b);
  const union = area(a) + area(b) - both;
  return union ? both / union : 1;
}

/** IoU with a true box as the method's protocol has it: its area may count what the frame cuts off. */
function overlap(box, truth, size, method) {
  const edge = method.inclusive ? 1 : 0;
  const whole = [truth[0], truth[1], truth[2] + edge, truth[3] + edge];
  const seen = whole.map((side) => Math.min(Math.max(side, 0), size));
  if (!box || !area(seen)) return 0;
  const both = shared(box, seen);
  return both / (area(box) + area(method.unclipped ? whole : seen) - both);
}

function bestIou(box, truth, size, method) {
  return Math.max(0, ...truth.map((one) => overlap(box, one, size, method)));
}

/** Mask, box and how well it fits, under the method's own rule or the threshold of the slider. */
function prediction(data, method, index) {
  const size = data.size;
  const truth = data.pictures[index].truth;
  const score = method.scores[index];
  if (state.threshold === null) {
    const mask = ownMask(method, index, size);
    const kept = score && score.box.some(Boolean) ? score.box : null;
    const box = score ? kept : boxOf(mask, size, method.rule);
    const fit = score ? score.iou : truth && bestIou(box, truth, size, method);
    return { mask, box, overlap: fit, protocol: score && score.protocol };
  }
  const map = enlarge(method, index, size);
  const mask = Uint8Array.from(map, (value) => value > state.threshold);
  const box = boxOf(mask, size, method.rule);
  return { mask, box, overlap: truth && bestIou(box, truth, size, method), protocol: null };
}

// --- drawing -----------------------------------------------------------------------------------

const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

function colour(share) {
  const place = share * (VIRIDIS.length - 1);
  const low = Math.min(Math.floor(place), VIRIDIS.length - 2);
  return VIRIDIS[low].map((value, i) => value + (place - low) * (VIRIDIS[low + 1][i] - value));
}

function paint(canvas, image, data, method, index, found) {
  const size = data.size;
  const scale = Math.max(1, Math.round(448 / size));
  canvas.width = canvas.height = size * scale;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const view = $("view").value;
  if (view !== "picture") {
    context.drawImage(layer(data, method, index, found.mask, view), 0, 0, canvas.width, canvas.height);
  }
  for (const truth of data.pictures[index].truth || []) {
    stroke(context, truth, scale, [["#000", 4, []], ["#ffd400", 2, [6, 4]]]);
  }
  if (found.box) stroke(context, found.box, scale, [["#000", 5, []], ["#fff", 2.5, []]]);
}

/** What lies over the picture: the map in colours, or grey where the mask hides it. */
function layer(data, method, index, mask, view) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = data.size;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(data.size, data.size);
  const map = enlarge(method, index, data.size);
  for (let i = 0; i < mask.length; i++) {
    const hidden = view === "inside" ? !mask[i] : mask[i];
    const mapped = view === "overlay" || view === "map";
    const rgb = mapped ? colour(map[i] / 255) : [89, 89, 89];
    const alpha = view === "overlay" ? 128 : view === "map" || hidden ? 255 : 0;
    pixels.data.set([...rgb, alpha], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function stroke(context, box, scale, pens) {
  for (const [ink, width, dashes] of pens) {
    context.strokeStyle = ink;
    context.lineWidth = width;
    context.setLineDash(dashes);
    context.strokeRect(box[0] * scale, box[1] * scale, (box[2] - box[0]) * scale, (box[3] - box[1]) * scale);
  }
}

// --- the page ----------------------------------------------------------------------------------

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function words(found, truth) {
  const overlap = found.overlap === null || found.overlap === undefined ? "true box not kept" : `IoU ${found.overlap.toFixed(2)}`;
  const box = found.box ? `box ${found.box.join(", ")}` : "no box";
  const how = state.threshold === null ? found.protocol || "own rule" : `threshold ${(state.threshold / 255).toFixed(2)}`;
  return `${overlap} (${how}), ${box}`;
}

/** Calls back at once if the file was loaded before, so that dragging the threshold is smooth. */
function withImage(file, callback) {
  if (!images.has(file)) images.set(file, element("img", { src: file }));
  const image = images.get(file);
  if (image.complete) callback(image);
  else image.addEventListener("load", () => callback(image), { once: true });
}

function draw() {
  const data = loaded.get(state.set);
  if (!data) return;
  const index = state.order[state.at];
  const picture = data.pictures[index];
  $("position").textContent = `${state.at + 1} of ${state.order.length}: ${picture.name}`;
  $("level").value = state.threshold === null ? "own rule" : (state.threshold / 255).toFixed(2);
  withImage(picture.file, (image) => {
    if (index !== state.order[state.at] || data !== loaded.get(state.set)) return;
    const figures = data.methods.filter((_, i) => !state.hidden.has(i)).map((method) => {
      const found = prediction(data, method, index);
      const text = words(found);
      const canvas = element("canvas", { role: "img", "aria-label": `${method.title} on ${picture.name}: ${text}` });
      paint(canvas, image, data, method, index, found);
      const link = element("a", { href: method.record }, method.title);
      return element("figure", {}, canvas, element("figcaption", {}, link, `: ${text}`));
    });
    $("views").replaceChildren(...figures);
  });
  [...$("strip").children].forEach((button, i) => button.setAttribute("aria-pressed", i === state.at));
}

function reorder() {
  const data = loaded.get(state.set);
  const current = state.order[state.at];
  const [kind, a, b] = $("order").value.split(" ");
  const boxes = (m) => data.methods[m].scores.map((score) => score && score.box);
  const rank = {
    name: (i) => i,
    failure: (i) => (data.methods[a].scores[i] || { iou: 2 }).iou,
    disagreement: (i) => agreement(boxes(a)[i], boxes(b)[i]),
  }[kind];
  state.order = data.pictures.map((_, i) => i).sort((x, y) => rank(x) - rank(y) || x - y);
  state.at = kind === "name" ? Math.max(0, state.order.indexOf(current)) : 0;
  $("strip").replaceChildren(...state.order.map((index, place) => thumbnail(data.pictures[index], place)));
  draw();
}

function thumbnail(picture, place) {
  const image = element("img", { src: picture.file, alt: picture.name, loading: "lazy", width: 72, height: 72 });
  const button = element("button", { type: "button" }, image);
  button.addEventListener("click", () => go(place));
  return button;
}

function go(place) {
  state.at = (place + state.order.length) % state.order.length;
  draw();
}

function setThreshold(value) {
  state.threshold = value;
  if (value !== null) $("threshold").value = value;
  draw();
}

function open(number) {
  state.set = number;
  if (loaded.has(number)) return present();
  document.head.append(element("script", { src: sets[number].file }));
}

function present() {
  const data = loaded.get(state.set);
  Object.assign(state, { order: [], at: 0, hidden: new Set() });
  const orders = [new Option("as kept", "name")];
  data.methods.forEach((method, i) => {
    orders.push(new Option(`failures of ${method.title}`, `failure ${i}`));
    for (let j = i + 1; j < data.methods.length; j++) {
      orders.push(new Option(`${method.title} against ${data.methods[j].title}`, `disagreement ${i} ${j}`));
    }
  });
  $("order").replaceChildren(...orders);
  const boxes = data.methods.map((method, i) => {
    const box = element("input", { type: "checkbox" });
    box.checked = !method.variant;
    if (method.variant) state.hidden.add(i);
    box.addEventListener("change", () => {
      box.checked ? state.hidden.delete(i) : state.hidden.add(i);
      draw();
    });
    return element("label", {}, box, method.title);
  });
  $("methods").replaceChildren($("methods").querySelector("legend"), ...boxes);
  reorder();
}

window.casmBench = {
  take(number, data) {
    loaded.set(number, data);
    if (number === state.set) present();
  },
};

function keyed(event) {
  const typing = ["SELECT", "INPUT"].includes(event.target.tagName);
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const moved = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const raised = { ArrowUp: 8, ArrowDown: -8 }[event.key];
  if (moved) go(state.at + moved);
  else if (raised) {
    const from = state.threshold === null ? Number($("threshold").value) : state.threshold;
    setThreshold(Math.min(255, Math.max(0, from + raised)));
  } else if (event.key === "o") setThreshold(null);
  else if (event.key === "v") {
    $("view").selectedIndex = ($("view").selectedIndex + 1) % $("view").length;
    draw();
  } else return;
  event.preventDefault();
}

if (sets && sets.length && $("controls")) {
  sets.forEach((set, i) => $("set").add(new Option(set.title + (set.private ? " (not to be shared)" : ""), i)));
  $("set").addEventListener("change", () => open(Number($("set").value)));
  $("view").addEventListener("change", draw);
  $("order").addEventListener("change", reorder);
  $("threshold").addEventListener("input", () => setThreshold(Number($("threshold").value)));
  $("own").addEventListener("click", () => setThreshold(null));
  $("previous").addEventListener("click", () => go(state.at - 1));
  $("next").addEventListener("click", () => go(state.at + 1));
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", keyed);
  open(0);
}
