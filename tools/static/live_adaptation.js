// Two networks that descend to points of a sine; after a prediction the reader moves points, sine and steps.
// A kind of figure for live.js, which comes before this script.
"use strict";

{ // names of its own: other kinds of figures may be on the page
const [WIDTH, HEIGHT] = [480, 380]; // of the drawing
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

const two = (value) => value.toFixed(2).replace("-", "\u2212");
const written = (error) => (error < 999.5 ? error.toPrecision(3) : "over 1,000");
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const floats = (text) => [...new Float32Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer)];

// What comes to each layer for an input, and what leaves the last. A layer's `values` are its weights (outputs, inputs),
// then its biases; a ReLU stands between layers.
function passed(layers, x) {
  const maps = [[x]];
  layers.forEach(({ inputs, outputs, values }, depth) => maps.push(Array.from({ length: outputs }, (_, o) => {
    let sum = values[outputs * inputs + o];
    for (let i = 0; i < inputs; i++) sum += values[o * inputs + i] * maps[depth][i];
    return depth < layers.length - 1 ? Math.max(sum, 0) : sum;
  })));
  return maps;
}
const output = (layers, x) => passed(layers, x).pop()[0];

// The mean squared error on points.
const error = (layers, points) => points.reduce((sum, [x, y]) => sum + (output(layers, x) - y) ** 2, 0) / points.length;

// The network after a step against its gradient.
function descended(layers, points, rate) {
  const next = layers.map((layer) => ({ ...layer, values: [...layer.values] }));
  for (const [x, y] of points) {
    const maps = passed(layers, x);
    let slope = [2 * (maps.pop()[0] - y) / points.length];
    for (let depth = layers.length; depth--;) {
      const { inputs, outputs, values } = layers[depth];
      const back = Array(inputs).fill(0);
      for (let o = 0; o < outputs; o++) {
        next[depth].values[outputs * inputs + o] -= rate * slope[o];
        for (let i = 0; i < inputs; i++) {
          next[depth].values[o * inputs + i] -= rate * slope[o] * maps[depth][i];
          if (maps[depth][i] > 0) back[i] += slope[o] * values[o * inputs + i]; // through the ReLU before
        }
      }
      slope = back;
    }
  }
  return next;
}

KINDS.adaptation = (root, { names, networks, points: given, sliders, texts, rate, grid, extent: [left, right, bottom, top] }) => {
  const starts = networks.map((layers) => layers.map((layer) => ({ ...layer, values: floats(layer.weights) })));
  const inputs = Array.from({ length: grid }, (_, place) => left + (right - left) * place / (grid - 1));
  let [state, points, choice, pause] = [[], [], null, null]; // the state: steps, amplitude, phase
  const sine = (x) => [x, state[1] * Math.sin(x - state[2])];
  const across = (x) => (x - left) / (right - left) * WIDTH;
  const up = (y) => (top - y) / (top - bottom) * HEIGHT;
  const ticks = [[left + 1, 0], [right - 1, 0], [0, bottom + 1], [0, top - 1]].map(([x, y]) =>
    drawn("text", { x: across(x) + (x ? 0 : 18), y: up(y) + (x ? -8 : 7) }, two(x + y).slice(0, -3)));
  const lines = ["kd-sine", "kd-fit kd-ink-0", "kd-fit kd-ink-1"].map((name) => drawn("path", { class: name }));
  const spots = given.map(() => drawn("g", { class: "kd-spot", role: "application", tabindex: 0 }, drawn("circle", { r: 26 }), drawn("circle", { r: 9 })));
  const svg = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group", "aria-label": texts.panel },
    drawn("path", { class: "kd-origin", d: `M0 ${up(0)}H${WIDTH}M${across(0)} 0V${HEIGHT}` }),
    ...ticks, ...lines, ...spots);
  spots.forEach((spot, number) => {
    const move = (x, y) => {
      points = points.with(number, [clamp(x, left, right), clamp(y, bottom, top)]);
      draw();
    };
    spot.ontouchstart = (event) => event.preventDefault(); // no scrolling
    spot.onpointerdown = (event) => event.button === 0 && spot.setPointerCapture(event.pointerId);
    spot.onpointermove = (event) => {
      if (!spot.hasPointerCapture(event.pointerId)) return;
      const { x, y, width, height } = svg.getBoundingClientRect();
      move(left + (event.clientX - x) / width * (right - left), top - (event.clientY - y) / height * (top - bottom));
    };
    spot.onkeydown = (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in ARROWS)) return;
      event.preventDefault();
      move(...ARROWS[event.key].map((way, axis) => points[number][axis] + way * (event.shiftKey ? 1 : 0.2)));
    };
  });

  const controls = sliders.map(({ name, ...range }, place) => {
    const input = make("input", { type: "range", id: `kd-live-${(radios.count = (radios.count ?? 0) + 1)}`, ...range });
    input.oninput = () => {
      state[place] = Number(input.value);
      if (place) points = points.map(([x]) => sine(x));
      draw();
    };
    return [make("label", { htmlFor: input.id, textContent: name }), input, make("output", { htmlFor: input.id })];
  });
  const rows = names.map((name, place) => make("div", { className: `kd-ink-${place}` }, make("span", { textContent: name }), make("span")));
  const guess = radios("Your prediction", names);
  const lock = make("button", { type: "button", textContent: "Lock in", disabled: true });
  const [verdict, said] = [speaker(), speaker()];
  const both = () => root.values.networks.map((one, place) => `${written(one.error)} (${names[place]})`).join(" and ");

  function draw() {
    const wave = inputs.map(sine);
    const adapted = starts.map((layers) => {
      for (let step = 0; step < state[0]; step++) layers = descended(layers, points, rate);
      return { curve: inputs.map((x) => [x, output(layers, x)]), error: error(layers, wave) };
    });
    root.values = { choice, state, points, wave, networks: adapted };
    [wave, ...adapted.map(({ curve }) => curve)].forEach((curve, place) => lines[place].setAttribute("d", `M${curve.map(([x, y]) =>
      `${across(x).toFixed(1)} ${(clamp(up(y), -HEIGHT, 2 * HEIGHT) || 0).toFixed(1)}`).join("L")}`));
    points.forEach(([x, y], number) => {
      spots[number].setAttribute("transform", `translate(${across(x).toFixed(2)},${up(y).toFixed(2)})`);
      spots[number].setAttribute("aria-label", `Point ${number + 1}, x = ${two(x)}, y = ${two(y)}. ${texts.arrows}`);
    });
    controls.forEach(([, input, shown], place) => {
      input.value = state[place];
      shown.textContent = place ? two(state[place]) : state[0];
    });
    rows.forEach((row, place) => { row.lastChild.textContent = written(adapted[place].error); });
    clearTimeout(pause);
    pause = setTimeout(() => {
      said.textContent = `Gradient steps: ${state[0]}. ${texts.head}: ${both()}.`;
    }, 400); // milliseconds without a change
  }
  function begin() {
    [state, points] = [sliders.map(({ value }) => value), given];
    draw();
  }

  guess.querySelector("input").checked = false;
  guess.oninput = () => { lock.disabled = false; };
  lock.onclick = () => {
    choice = chosen(guess);
    guess.disabled = lock.disabled = true;
    lock.textContent = "Locked";
    board.inert = false;
    state[0] = 1;
    draw();
    const [a, b] = root.values.networks.map(({ error }) => error);
    verdict.textContent = `You said ${names[choice]}. After one step the errors are ${both()}: ${texts[(choice ? b < a : a < b) ? "right" : "wrong"]}`;
    controls[0][1].focus({ preventScroll: true });
  };
  verdict.textContent = texts.before;
  const board = make("div", { inert: true }, ...controls.map((parts) => make("div", { className: "kd-slider" }, ...parts)),
    make("div", { className: "kd-buttons" }, make("button", { type: "button", textContent: "Reset", onclick: begin })),
    make("div", { className: "kd-beside" }, svg, make("div", { className: "kd-numbers" }, make("p", { className: "kd-name", textContent: texts.head }), ...rows,
      make("p", { className: "kd-note", textContent: texts.hint }))));
  root.append(make("div", { className: "kd-question kd-tools" }, make("p", { textContent: texts.question }), guess, lock, verdict), board, said);
  begin();
};
}
