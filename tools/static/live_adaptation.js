// Networks that adapt to a few points of a sine by gradient descent; the reader moves the points and the steps.
// A kind of figure for live.js, which comes before this script. The block keeps its names apart from other scripts'.
"use strict";

{
  const [WIDTH, HEIGHT] = [480, 380]; // of the panel, in the units of its drawing
  const REACH = 30; // how near the pointer must be to grasp a point, in the same units
  const PAUSE = 400; // milliseconds without a change after which the sentence is said
  const STYLES = ["kd-first", "kd-second", "kd-third"];

  function drawn(tag, attributes = {}, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  // A number with so many decimals, or with three digits, and a true minus sign.
  const decimals = (value, digits) => value.toFixed(digits).replace(/^-(?=0\.?0*$)/, "").replace("-", "\u2212");
  const significant = (value) => decimals(value, Math.min(9, Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value) || 1)))));
  const lossText = (loss) => (loss < 1e6 ? significant(loss) : "over a million");
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const plural = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

  // ---- The networks: a layer of kind "linear" has `values`, its weights (outputs, inputs) and then its biases.

  // 32-bit floating-point numbers that were written as base64, as 64-bit ones.
  function read(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return Float64Array.from({ length: bytes.length / 4 }, (_, place) => view.getFloat32(4 * place, true));
  }

  const FORWARD = {
    linear(input, { inputs, outputs, values }) {
      return Float64Array.from({ length: outputs }, (_, output) => {
        let sum = values[outputs * inputs + output];
        for (let i = 0; i < inputs; i++) sum += values[output * inputs + i] * input[i];
        return sum;
      });
    },
    relu: (input) => input.map((value) => Math.max(value, 0)),
    tanh: (input) => input.map(Math.tanh),
  };

  // The slope of the loss with respect to a layer's input, from that with respect to its output; `gradient` of a linear
  // layer gains what this point adds to it.
  const BACKWARD = {
    linear(slope, { inputs, outputs, values }, input, output, gradient) {
      const back = new Float64Array(inputs);
      for (let o = 0; o < outputs; o++) {
        gradient[outputs * inputs + o] += slope[o];
        for (let i = 0; i < inputs; i++) {
          gradient[o * inputs + i] += slope[o] * input[i];
          back[i] += slope[o] * values[o * inputs + i];
        }
      }
      return back;
    },
    relu: (slope, layer, input) => slope.map((value, place) => (input[place] > 0 ? value : 0)),
    tanh: (slope, layer, input, output) => slope.map((value, place) => value * (1 - output[place] ** 2)),
  };

  // The input, and what each layer makes of it.
  const passed = (layers, x) =>
    layers.reduce((maps, layer) => [...maps, FORWARD[layer.kind](maps[maps.length - 1], layer)], [Float64Array.of(x)]);
  const output = (layers, x) => passed(layers, x)[layers.length][0];
  const meanSquaredError = (layers, points) =>
    points.reduce((sum, [x, y]) => sum + (output(layers, x) - y) ** 2, 0) / points.length;

  // The network after one step of gradient descent on the mean squared error of the points.
  function descended(layers, points, rate) {
    const gradients = layers.map(({ values }) => values && new Float64Array(values.length));
    for (const [x, y] of points) {
      const maps = passed(layers, x);
      let slope = Float64Array.of((2 * (maps[layers.length][0] - y)) / points.length);
      for (let place = layers.length - 1; place >= 0; place--) {
        const layer = layers[place];
        slope = BACKWARD[layer.kind](slope, layer, maps[place], maps[place + 1], gradients[place]);
      }
    }
    return layers.map((layer, place) => (layer.values
      ? { ...layer, values: layer.values.map((value, one) => value - rate * gradients[place][one]) } : layer));
  }

  // ---- The panel: curves, the sine, and the points, each of them a handle. `moved(point, to)` is called while a point
  // is dragged or pushed by the keyboard.
  function panelOf({ extent: [left, right, bottom, top], tasks, networks }, moved) {
    const across = (x) => ((x - left) / (right - left)) * WIDTH;
    const up = (y) => ((top - y) / (top - bottom)) * HEIGHT;
    const line = (places, values) => (values.every(Number.isFinite) ? values.map((value, place) =>
      `${place ? "L" : "M"}${across(places[place]).toFixed(1)} ${clamp(up(value), -HEIGHT, 2 * HEIGHT).toFixed(1)}`).join("") : "");
    const digit = 10 ** Math.floor(Math.log10(0.8 * top));
    const tick = Math.floor((0.8 * top) / digit) * digit;
    const text = (value) => String(Number(value.toPrecision(1))).replace("-", "\u2212");
    const grid = [
      drawn("path", { class: "kd-axis", d: `M0 ${up(0)}H${WIDTH}M${across(0)} 0V${HEIGHT}` }),
      ...[-tick, tick].map((y) => drawn("text", { x: across(0) + 8, y: up(y) + 7 }, text(y))),
      ...[left, right].map((x) => drawn("text", {
        x: across(x) + (x < 0 ? 6 : -6), y: HEIGHT - 10, "text-anchor": x < 0 ? "start" : "end",
      }, text(x))),
    ];
    const sine = drawn("path", { class: "kd-sine" });
    const curves = networks.map((_, number) => drawn("path", { class: `kd-curve ${STYLES[number]}` }));
    const most = Math.max(...tasks.map(({ inputs }) => inputs.length));
    const handles = Array.from({ length: most }, () => drawn("g", { class: "kd-point", tabindex: 0, role: "application" },
      drawn("circle", { r: REACH, class: "kd-around" }), drawn("circle", { r: 9 })));
    const svg = drawn("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group",
      "aria-label": `Curves of the networks for x from ${text(left)} to ${text(right)}, and the points`,
    }, ...grid, sine, ...curves, ...handles);
    let now = [];
    let grasped = null;

    function show(points, places, wave, lines) {
      now = points;
      sine.setAttribute("d", wave ? line(places, wave) : "");
      curves.forEach((curve, number) => curve.setAttribute("d", line(places, lines[number])));
      handles.forEach((handle, number) => {
        if (number >= points.length) return handle.setAttribute("display", "none");
        const [x, y] = points[number];
        handle.removeAttribute("display");
        handle.setAttribute("transform", `translate(${across(x).toFixed(2)},${up(y).toFixed(2)})`);
        handle.setAttribute("aria-label", `Point ${number + 1} of ${points.length}, at x = ${decimals(x, 2)}, ` +
          `y = ${decimals(y, 2)}. The arrow keys move it, with Shift in larger steps.`);
      });
    }

    const under = (event) => {
      const box = svg.getBoundingClientRect();
      return [left + ((event.clientX - box.left) / box.width) * (right - left),
        top - ((event.clientY - box.top) / box.height) * (top - bottom)];
    };
    const nearest = ([x, y]) => now
      .map((point, number) => ({ number, point, distance: Math.hypot(across(point[0]) - across(x), up(point[1]) - up(y)) }))
      .filter(({ distance }) => distance <= REACH)
      .sort((a, b) => a.distance - b.distance)[0];

    svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !event.isPrimary) return;
      const at = under(event);
      grasped = nearest(at) ?? null;
      if (!grasped) return;
      event.preventDefault();
      svg.setPointerCapture(event.pointerId);
      grasped.offset = [0, 1].map((axis) => grasped.point[axis] - at[axis]);
      handles[grasped.number].focus({ preventScroll: true });
    });
    // A finger on a point drags it; elsewhere it scrolls the page.
    svg.addEventListener("touchstart", (event) => {
      if (event.touches.length === 1 && nearest(under(event.touches[0]))) event.preventDefault();
    }, { passive: false });
    svg.addEventListener("pointermove", (event) => {
      if (event.isPrimary && grasped) moved(grasped.number, under(event).map((value, axis) => value + grasped.offset[axis]));
    });
    for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => { grasped = null; });
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    handles.forEach((handle, number) => handle.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in steps)) return;
      event.preventDefault(); // the page does not scroll
      const share = event.shiftKey ? 0.1 : 0.02;
      moved(number, [right - left, top - bottom].map((side, axis) =>
        now[number][axis] + share * side * steps[event.key][axis]));
    }));
    return { element: make("div", { className: "kd-curves" }, svg), show };
  }

  KINDS.adaptation = (root, content) => {
    const { tasks, rate, steps, grid, extent: [left, right, bottom, top] } = content;
    const networks = content.networks.map(({ name, layers }) => ({
      name, layers: layers.map((layer) => ("weights" in layer ? { ...layer, values: read(layer.weights) } : layer)),
    }));
    const places = Array.from({ length: grid }, (_, place) => left + ((right - left) * place) / (grid - 1));
    const given = ({ inputs, targets }) => inputs.map((x, place) => [x, targets[place]]);
    let [task, points, byHand, pause] = [0, given(tasks[0]), false, null];

    const panel = panelOf(content, (number, [x, y]) => {
      byHand = true;
      points = points.map((point, place) => (place === number ? [clamp(x, left, right), clamp(y, bottom, top)] : point));
      draw();
    });
    const id = `kd-live-${(radios.count = (radios.count ?? 0) + 1)}`;
    const slider = make("input", { type: "range", id, min: 0, max: steps, step: 1, value: 0 });
    const shown = make("output", { htmlFor: id });
    const other = make("button", { type: "button", textContent: "New task" });
    const back = make("button", { type: "button", textContent: "Put the points back" });
    const row = (style, name) => {
      const value = make("span");
      const key = drawn("svg", { class: "kd-key", viewBox: "0 0 40 10", "aria-hidden": "true" },
        drawn("path", { class: style, d: "M0 5H40" }));
      return { value, element: make("div", {}, make("span", {}, key, name), value) };
    };
    const rows = networks.map(({ name }, number) => row(`kd-curve ${STYLES[number]}`, name));
    const wave = row("kd-sine", "the sine");
    const head = make("p", { className: "kd-name", textContent: "Mean squared error on the points" });
    const hint = make("p", {
      className: "kd-note",
      textContent: "Drag a point. With the keyboard, press Tab to reach a point and move it by the arrow keys.",
    });
    const said = speaker();
    root.append(
      make("div", { className: "kd-slider" }, make("label", { htmlFor: id, textContent: "Gradient steps" }), slider, shown),
      make("div", { className: "kd-buttons" }, ...(tasks.length > 1 ? [other] : []), back),
      make("div", { className: "kd-beside" }, panel.element,
        make("div", { className: "kd-numbers" }, head, ...rows.map(({ element }) => element), wave.element, hint)), said);

    function draw() {
      const step = Number(slider.value);
      const { amplitude, phase } = tasks[task];
      const adapted = networks.map(({ name, layers }) => {
        const losses = [meanSquaredError(layers, points)];
        for (let done = 0; done < step; done++) {
          layers = descended(layers, points, rate);
          losses.push(meanSquaredError(layers, points));
        }
        return { name, losses, loss: losses[step], curve: places.map((x) => output(layers, x)) };
      });
      const sine = byHand ? null : places.map((x) => amplitude * Math.sin(x - phase));
      panel.show(points, places, sine, adapted.map(({ curve }) => curve));
      shown.textContent = step;
      slider.setAttribute("aria-valuetext", plural(step, "gradient step"));
      rows.forEach(({ value }, number) => { value.textContent = lossText(adapted[number].loss); });
      wave.value.textContent = byHand ? "points moved by hand"
        : `${decimals(amplitude, 2)} sin(x ${phase < 0 ? "+" : "\u2212"} ${decimals(Math.abs(phase), 2)})`;
      root.values = { task, step, byHand, points, sine, networks: adapted };
      clearTimeout(pause);
      pause = setTimeout(say, PAUSE);
    }

    function say() {
      const { step, networks: adapted } = root.values;
      const losses = adapted.map(({ name, loss }) => `${lossText(loss)} (${name})`);
      const all = `${losses.slice(0, -1).join(", ")} and ${losses[losses.length - 1]}`;
      said.textContent = `Task ${task + 1} of ${tasks.length}${byHand ? ", with points moved by hand" : ""}: ` +
        `after ${plural(step, "gradient step")} on ${plural(points.length, "point")}, the mean squared error is ${all}.`;
    }

    const begin = (number) => {
      [task, points, byHand] = [number, given(tasks[number]), false];
      draw();
    };
    slider.addEventListener("input", draw);
    other.addEventListener("click", () => begin((task + 1) % tasks.length));
    back.addEventListener("click", () => begin(task));
    begin(0);
    say();
  };
}
