// Figures that a reader can move: <kd-live kind="..."><script type="application/json">...</script></kd-live>.
// Each kind is a function that fills the element from its numbers; `values` on the element is what it shows now.
"use strict";

function softmax(logits, temperature) {
  const highest = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp((logit - highest) / temperature));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// The same for a part of a drawing (SVG).
function drawn(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;

// A named bar for a share between 0 and 1; the right one stands out.
function bar(name, share, right) {
  return make("div", { className: right ? "kd-row kd-right" : "kd-row" },
    make("span", { textContent: name }),
    make("span", { className: "kd-track" }, make("span", { className: "kd-bar", style: `width:${100 * share}%` })),
    make("span", { textContent: percent(share) }));
}

// Radio buttons with a legend, the first one checked: `options` are what stands beside each button.
function radios(legend, options) {
  const group = `kd-live-${(radios.count = (radios.count ?? 0) + 1)}`;
  const set = make("fieldset", {}, make("legend", { textContent: legend }));
  options.forEach((option, number) => {
    const button = make("input", { type: "radio", name: group, value: number, checked: number === 0 });
    set.append(make("label", {}, button, option));
  });
  return set;
}

const chosen = (set) => Number(set.querySelector("input:checked").value);

// A sentence that a screen reader reads out when it changes.
function speaker() {
  const said = make("p", { className: "kd-said" });
  said.setAttribute("aria-live", "polite");
  return said;
}

// Numbers of classes, the largest logit first.
const ordered = (logits) => Array.from(logits, (_, c) => c).sort((a, b) => logits[b] - logits[a]);

// ---- Networks that run in the page: feature maps are {data, channels, height, width}, data in the order of PyTorch.

// The value of a 16-bit floating-point number, given as its bits; infinity and NaN do not occur.
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = (bits & 1023) / 1024;
  return exponent === 0 ? sign * fraction * 2 ** -14 : sign * (1 + fraction) * 2 ** (exponent - 15);
}

// 16-bit floating-point numbers that were written as base64.
function numbers(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 2 }, (_, place) => half(view.getUint16(2 * place, true)));
}

const LAYERS = {
  // `values` are the weights (outputs, inputs, kernel, kernel), then the biases.
  convolution({ data, height, width }, { inputs, outputs, kernel, stride, padding, values }) {
    const size = (length) => Math.floor((length + 2 * padding - kernel) / stride) + 1;
    const [rows, columns] = [size(height), size(width)];
    const result = new Float32Array(outputs * rows * columns);
    const biases = outputs * inputs * kernel * kernel;
    for (let output = 0; output < outputs; output++) {
      for (let row = 0; row < rows; row++) {
        for (let column = 0; column < columns; column++) {
          let sum = values[biases + output];
          for (let input = 0; input < inputs; input++) {
            const weights = (output * inputs + input) * kernel * kernel;
            for (let ky = 0; ky < kernel; ky++) {
              const y = row * stride + ky - padding;
              if (y < 0 || y >= height) continue;
              for (let kx = 0; kx < kernel; kx++) {
                const x = column * stride + kx - padding;
                if (x < 0 || x >= width) continue;
                sum += values[weights + ky * kernel + kx] * data[(input * height + y) * width + x];
              }
            }
          }
          result[(output * rows + row) * columns + column] = sum;
        }
      }
    }
    return { data: result, channels: outputs, height: rows, width: columns };
  },

  relu({ data, ...sizes }) {
    return { data: data.map((value) => Math.max(value, 0)), ...sizes };
  },

  // Over all positions.
  mean({ data, channels, height, width }) {
    const places = height * width;
    const result = Float32Array.from({ length: channels }, (_, channel) =>
      data.subarray(channel * places, (channel + 1) * places).reduce((sum, value) => sum + value, 0) / places);
    return { data: result, channels, height: 1, width: 1 };
  },

  // `values` are the weights (outputs, inputs), then the biases.
  linear({ data }, { inputs, outputs, values }) {
    const result = Float32Array.from({ length: outputs }, (_, output) =>
      data.reduce((sum, value, input) => sum + values[output * inputs + input] * value, values[outputs * inputs + output]));
    return { data: result, channels: outputs, height: 1, width: 1 };
  },
};

// Logits of a network for pixels (channels, height, width) of 0 to 255.
function run(layers, pixels, { mean, std, height, width }) {
  const channels = mean.length;
  const data = Float32Array.from(pixels, (level, place) => {
    const channel = Math.floor(place / (height * width));
    return (level / 255 - mean[channel]) / std[channel];
  });
  const first = { data, channels, height, width };
  return Array.from(layers.reduce((maps, layer) => LAYERS[layer.kind](maps, layer), first).data);
}

// ---- A picture to paint on

// Colors of the brush, by the number of channels of the picture.
const INKS = {
  3: {
    red: [229, 57, 53], yellow: [253, 216, 53], green: [67, 160, 71], blue: [30, 136, 229],
    white: [255, 255, 255], black: [0, 0, 0],
  },
  1: { black: [0], gray: [128], white: [255] },
};
const BRUSH = 3; // pixels wide and high

const css = (ink) => `rgb(${ink.length === 1 ? [ink, ink, ink] : ink})`;

// The pixels (channels, height, width) of a picture, 0 to 255.
function pixelsOf(image, channels) {
  const { naturalWidth: width, naturalHeight: height } = image;
  const context = make("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  return Uint8Array.from({ length: channels * height * width }, (_, place) => {
    const pixel = place % (height * width);
    return data[4 * pixel + Math.floor(place / (height * width))];
  });
}

// A canvas that is painted on by pointer or keyboard. `ink()` is the color, `changed()` is called after each dab of the
// brush, and `done()` when the pointer or the key is lifted.
function easel(channels, height, width, { ink, changed, done }) {
  const canvas = make("canvas", { className: "kd-canvas", width, height, tabIndex: 0 });
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label",
    `Picture of ${width} by ${height} pixels to paint on. The arrow keys move the brush, Space or Enter paints.`);
  const brush = make("span", { className: "kd-brush" });
  const context = canvas.getContext("2d");
  const made = { element: make("div", { className: "kd-easel" }, canvas, brush), pixels: null, show };
  let place = [Math.floor(width / 2), Math.floor(height / 2)];
  let painting = false;

  function show() {
    const data = context.createImageData(width, height);
    for (let pixel = 0; pixel < height * width; pixel++) {
      for (let color = 0; color < 3; color++) {
        data.data[4 * pixel + color] = made.pixels[(channels === 1 ? 0 : color) * height * width + pixel];
      }
      data.data[4 * pixel + 3] = 255;
    }
    context.putImageData(data, 0, 0);
  }

  function dab([x, y]) {
    const reach = (BRUSH - 1) / 2;
    const color = ink();
    for (let row = Math.max(0, y - reach); row <= Math.min(height - 1, y + reach); row++) {
      for (let column = Math.max(0, x - reach); column <= Math.min(width - 1, x + reach); column++) {
        color.forEach((level, channel) => { made.pixels[(channel * height + row) * width + column] = level; });
      }
    }
  }

  // Moves the brush, in a straight line where it paints.
  function move([x, y]) {
    const to = [Math.min(Math.max(x, 0), width - 1), Math.min(Math.max(y, 0), height - 1)];
    const steps = Math.max(1, Math.abs(to[0] - place[0]), Math.abs(to[1] - place[1]));
    for (let step = 1; painting && step <= steps; step++) {
      dab(place.map((from, axis) => Math.round(from + ((to[axis] - from) * step) / steps)));
    }
    place = to;
    const sides = [["left", place[0], width], ["top", place[1], height]];
    for (const [side, at, length] of sides) brush.style[side] = `${(100 * (at - (BRUSH - 1) / 2)) / length}%`;
    if (painting) {
      show();
      changed();
    }
  }

  function start() {
    painting = true;
    move(place);
  }

  function stop() {
    if (painting) done();
    painting = false;
  }

  const under = (event) => {
    const box = canvas.getBoundingClientRect();
    const along = (at, length, pixels) => Math.floor((at / length) * pixels);
    return [along(event.clientX - box.left, box.width, width), along(event.clientY - box.top, box.height, height)];
  };
  const paints = (key) => key === " " || key === "Enter";
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !event.isPrimary) return;
    canvas.setPointerCapture(event.pointerId);
    move(under(event));
    start();
  });
  canvas.addEventListener("pointermove", (event) => event.isPrimary && move(under(event)));
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !(paints(event.key) || event.key in steps)) return;
    event.preventDefault(); // the page does not scroll
    if (event.key in steps) move(place.map((at, axis) => at + steps[event.key][axis]));
    else if (!painting) start();
  });
  canvas.addEventListener("keyup", (event) => paints(event.key) && stop());
  for (const end of ["pointerup", "pointercancel", "blur"]) canvas.addEventListener(end, stop);
  brush.style.width = `${(100 * BRUSH) / width}%`;
  brush.style.height = `${(100 * BRUSH) / height}%`;
  move(place);
  return made;
}

// ---- Curves

const LETTER = 7.2; // about the width of one, in pixels
const SHAPES = ["M-1 0A1 1 0 1 1 1 0A1 1 0 1 1-1 0Z", "M-.9-.9H.9V.9H-.9Z", "M0-1.3L1.3 0L0 1.3L-1.3 0Z", "M0-1.05L1.15 1.05H-1.15Z"];

const mark = (shape, x, y, radius, name) => drawn("path", {
  class: name, d: SHAPES[shape % SHAPES.length], transform: `translate(${x.toFixed(2)} ${y.toFixed(2)}) scale(${radius})`,
});

// What a marker or a color means.
function key(entries) {
  return make("div", { className: "kd-key" }, ...entries.map(([name, ink, shape]) => make("span", {},
    drawn("svg", { viewBox: "-10 -10 20 20", "aria-hidden": true, class: ink }, ...(shape === null
      ? [drawn("path", { class: "kd-patch", d: "M-8-5H8V5H-8Z" })] : [mark(shape, 0, 0, 6, "kd-mark")])), name)));
}

// A drawing as wide as its place; `draw(svg, width)` fills it whenever that changes. Calling it draws anew.
function drawing(label, draw) {
  const svg = drawn("svg", { role: "img", "aria-label": label });
  let width = 0;
  const again = () => { svg.replaceChildren(); draw(svg, width); };
  new ResizeObserver(([{ contentRect }]) => {
    if (Math.abs(contentRect.width - width) < 0.5) return;
    width = contentRect.width;
    again();
  }).observe(svg);
  return { svg, again: () => width && again() };
}

// A question that comes first: `changed(prediction)` is called when the reader moves it, `opened()` when it is locked in.
// The figure waits meanwhile, with its slider; what stands in it as a curve is hidden.
function asked(root, slider, { text, low, high, step, digits, unit, measured }, changed, opened) {
  slider.disabled = true;
  const first = low + step * Math.round((high - low) / step / 4); // the middle is too often near the answer
  const guess = make("input", { type: "range", id: `${slider.id}-guess`, min: low, max: high, step, value: first });
  const value = make("output", { htmlFor: guess.id });
  const button = make("button", { type: "button", textContent: "Lock in" });
  const verdict = speaker();
  verdict.textContent = "The curves appear when it is locked in.";
  const written = () => {
    const number = Number(guess.value).toFixed(digits).replace(/\B(?=(\d{3})+(?!\d))/g, digits ? "" : ",").replace("-", "\u2212");
    return unit ? `${number}\u00a0${unit}` : number;
  };
  const predict = () => {
    value.textContent = written();
    guess.setAttribute("aria-valuetext", written());
    changed(Number(guess.value));
  };
  guess.addEventListener("input", predict);
  button.addEventListener("click", () => {
    guess.disabled = button.disabled = true;
    button.textContent = "Locked";
    root.classList.remove("kd-waiting");
    verdict.textContent = `You said ${written()}; measured: ${measured}.`;
    slider.disabled = false;
    opened();
    slider.focus({ preventScroll: true });
  }, { once: true });
  root.classList.add("kd-waiting");
  root.append(make("div", { className: "kd-question" }, make("p", { textContent: text }),
    make("div", { className: "kd-slider" }, make("label", { htmlFor: guess.id, textContent: "Your prediction" }), guess, value),
    make("div", { className: "kd-buttons" }, button), verdict));
  predict();
}

// ---- The figures

const KINDS = {
  // Probabilities of classes at a temperature: a picture is chosen by radio buttons, T by a slider in steps of 2^(1/4).
  temperature(root, { classes, top, start, samples }) {
    const choice = radios("Picture", samples.map(({ picture, label }) =>
      make("img", { src: picture, alt: `Picture of class ${classes[label]}` })));
    const slider = make("input", {
      type: "range", id: `${choice.querySelector("input").name}-t`, min: -8, max: 24, step: 1,
      value: Math.round(4 * Math.log2(start)),
    });
    const shown = make("output", { htmlFor: slider.id });
    const rows = make("div", { className: "kd-bars" });
    const said = speaker();
    const label = make("label", { htmlFor: slider.id, textContent: "Temperature T" });
    root.append(choice, make("div", { className: "kd-slider" }, label, slider, shown), rows, said);

    const draw = () => {
      const sample = samples[chosen(choice)];
      const temperature = 2 ** (Number(slider.value) / 4);
      const probabilities = softmax(sample.logits, temperature);
      const order = ordered(sample.logits);
      const best = order.slice(0, top);
      const rest = order.slice(top).reduce((sum, c) => sum + probabilities[c], 0);
      rows.replaceChildren(
        ...best.map((c) => bar(classes[c], probabilities[c], c === sample.label)),
        bar(`${classes.length - top} others`, rest, false));
      const text = temperature.toFixed(temperature < 10 ? 2 : 1);
      shown.textContent = text;
      slider.setAttribute("aria-valuetext", `T = ${text}`);
      const bits = -probabilities.reduce((sum, p) => sum + (p > 0 ? p * Math.log2(p) : 0), 0);
      said.textContent = `At T = ${text} the first choice, ${classes[best[0]]}, has ${percent(probabilities[best[0]])}; ` +
        `${percent(1 - probabilities[best[0]])} are left for the others. Entropy: ${bits.toFixed(2)} bits.`;
      root.values = { temperature, probabilities, bits };
    };
    root.addEventListener("input", draw);
    draw();
  },

  // What networks answer to a picture that the reader paints over; answers that were given are of the untouched picture.
  async answers(root, { classes, top, mean, std, samples, networks, given }) {
    const images = samples.map(({ picture, label, name }) =>
      make("img", { src: picture, alt: `${name} (${classes[label]})` }));
    await Promise.all(images.map((image) => image.decode()));
    const originals = images.map((image) => pixelsOf(image, mean.length));
    const size = { mean, std, height: images[0].naturalHeight, width: images[0].naturalWidth };
    const running = networks.map(({ name, layers }) => ({
      name, layers: layers.map((layer) => ("weights" in layer ? { ...layer, values: numbers(layer.weights) } : layer)),
    }));

    const inks = INKS[mean.length];
    const swatch = ([name, ink]) =>
      make("span", {}, make("span", { className: "kd-ink", style: `background:${css(ink)}` }), name);
    const choice = radios("Picture", images);
    const brush = radios("Brush", Object.entries(inks).map(swatch));
    const restore = make("button", { type: "button", textContent: "Restore" });
    const canvas = easel(mean.length, size.height, size.width, {
      ink: () => Object.values(inks)[chosen(brush)], changed: () => draw(), done: () => say(),
    });
    const columns = [...given, ...running].map(({ name }) => {
      const bars = make("div");
      const note = make("p", { className: "kd-note" });
      const column = make("div", {}, make("p", { className: "kd-name", textContent: name }), bars);
      if (given.some((answer) => answer.name === name)) column.append(note);
      column.setAttribute("role", "group");
      column.setAttribute("aria-label", name);
      return { name, column, bars, note };
    });
    const said = speaker();
    const hint = make("p", {
      className: "kd-note",
      textContent: "Paint with the pointer, or move the brush with the arrow keys and paint with Space.",
    });
    const tools = make("div", { className: "kd-tools" }, brush, restore, hint);
    root.append(
      choice, make("div", { className: "kd-paint" }, canvas.element, tools),
      make("div", { className: "kd-answers" }, ...columns.map(({ column }) => column)), said);

    const draw = () => {
      const picture = chosen(choice);
      const painted = canvas.pixels.some((level, place) => level !== originals[picture][place]);
      const answers = {};
      for (const { name, logits } of given) answers[name] = { logits: logits[picture], given: true };
      for (const { name, layers } of running) answers[name] = { logits: run(layers, canvas.pixels, size), given: false };
      for (const { name, bars, note } of columns) {
        const answer = answers[name];
        answer.probabilities = softmax(answer.logits, 1);
        bars.replaceChildren(...ordered(answer.logits).slice(0, top).map((c) =>
          bar(classes[c], answer.probabilities[c], c === samples[picture].label)));
        note.textContent = painted && answer.given ? "of the untouched picture" : "";
      }
      root.values = { picture, painted, pixels: Array.from(canvas.pixels), answers };
    };
    const say = () => {
      const { picture, painted, answers } = root.values;
      const sentences = Object.entries(answers).map(([name, { logits, probabilities, given }]) => {
        const best = ordered(logits)[0];
        const old = painted && given ? " of the untouched picture" : "";
        return `${name} says ${classes[best]} (${Math.round(100 * probabilities[best])}\u00a0%)${old}`;
      });
      const { label, name } = samples[picture];
      said.textContent = `${name} (${classes[label]}), ${painted ? "painted over" : "untouched"}: ${sentences.join("; ")}.`;
    };
    const reset = () => {
      canvas.pixels = originals[chosen(choice)].slice();
      canvas.show();
      draw();
      say();
    };
    choice.addEventListener("input", reset);
    restore.addEventListener("click", reset);
    reset();
  },
};

class Live extends HTMLElement {
  connectedCallback() {
    const source = this.querySelector("script");
    if (!source || this.filled) return; // moved within the page
    this.filled = true;
    KINDS[this.getAttribute("kind")](this, JSON.parse(source.textContent));
  }
}
// The script of the page comes before its body is read: wait until the numbers are there.
addEventListener("DOMContentLoaded", () => customElements.define("kd-live", Live));
