// Two groups of points that the reader moves, before the witness function of their maximum mean discrepancy.
// A kind of figure for live.js, which comes before this script.
"use strict";

{ // names of its own: other kinds of figures may be on the page
const SIDE = 480; // of the panel, in the units of its drawing
const REACH = { handle: 22, point: 30 }; // how near the pointer must be to grasp something, in pixels of the screen
const HEAT = [[47, 127, 191], [222, 108, 22]]; // where the first group is denser, and the second
const PAUSE = 400; // milliseconds without a change after which the sentence is said

// A number with so many decimals, or with three digits, and a true minus sign.
const decimals = (value, digits) => value.toFixed(digits).replace(/^-(?=0\.?0*$)/, "").replace("-", "\u2212");
const significant = (value) => decimals(value, Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value) || 1))));
const squared = (a, b) => (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2;
const meanOf = (points) => [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// The square root of the median squared distance of different points; of two medians the lower, as torch has it.
function medianRule(points) {
  const distances = [];
  points.forEach((a, i) => { for (let j = 0; j < i; j++) distances.push(squared(a, points[j])); });
  return Math.sqrt(distances.sort((a, b) => a - b)[(distances.length - 1) >> 1]);
}

// The members of the first group in each relabeling, from bits in base64.
function relabelings({ members, permutations, points }) {
  const bytes = Uint8Array.from(atob(members), (letter) => letter.charCodeAt(0));
  const count = points[0].length + points[1].length;
  return Array.from({ length: permutations }, (_, row) =>
    Array.from({ length: count }, (_, place) => place).filter((place) => {
      const bit = row * count + place;
      return (bytes[bit >> 3] >> (7 - (bit & 7))) & 1;
    }));
}

// MMD² without bias and with it, and the p-value of the former: one kernel matrix, and sums over it for each relabeling.
function twoSampleTest([x, y], sigma, members, ties) {
  const [n, m] = [x.length, y.length];
  const pooled = [...x, ...y];
  const kernel = pooled.map((a) => pooled.map((b) => (a === b ? 0 : Math.exp(-squared(a, b) / (2 * sigma ** 2)))));
  const rows = kernel.map((row) => row.reduce((sum, value) => sum + value, 0));
  const total = rows.reduce((sum, value) => sum + value, 0);
  // Sums over pairs of different points: within the first group, within the second, and between them.
  const sums = (first) => {
    let [within, touching] = [0, 0];
    for (const i of first) {
      touching += rows[i];
      for (const j of first) within += kernel[i][j];
    }
    return [within, total - 2 * touching + within, touching - within];
  };
  const unbiased = ([xx, yy, xy]) => xx / (n * (n - 1)) + yy / (m * (m - 1)) - (2 * xy) / (n * m);
  const [xx, yy, xy] = sums(x.map((_, place) => place));
  const observed = unbiased([xx, yy, xy]);
  const slack = (ties * total) / (pooled.length * (pooled.length - 1));
  const reached = members.filter((first) => unbiased(sums(first)) >= observed - slack).length;
  return {
    unbiased: observed, biased: (xx + n) / n ** 2 + (yy + m) / m ** 2 - (2 * xy) / (n * m),
    reached, p: (1 + reached) / (1 + members.length),
  };
}

// The witness at the middles of the map's cells, the lowest row first: the kernel is a product over the two axes.
function witnessOn(grid, [left, right, bottom], groups, sigma) {
  const values = new Float64Array(grid * grid);
  const side = right - left;
  groups.forEach((points, group) => {
    for (const point of points) {
      const [across, up] = [left, bottom].map((start, axis) => Float64Array.from({ length: grid }, (_, cell) =>
        Math.exp(-((start + ((cell + 0.5) / grid) * side - point[axis]) ** 2) / (2 * sigma ** 2))));
      for (let row = 0; row < grid; row++) {
        const share = (group === 0 ? up[row] : -up[row]) / points.length;
        for (let column = 0; column < grid; column++) values[row * grid + column] += share * across[column];
      }
    }
  });
  return values;
}

// Where the witness is zero, as lines of a drawing: in each square between four middles, between the edges it crosses.
function zeroLine(values, grid, least) {
  const cell = SIDE / grid;
  const lines = [];
  for (let row = 0; row < grid - 1; row++) {
    for (let column = 0; column < grid - 1; column++) {
      const at = row * grid + column;
      const around = [values[at], values[at + 1], values[at + grid + 1], values[at + grid]];
      const above = around.filter((value) => value > 0).length;
      if (above % 4 === 0 || !around.some((value) => Math.abs(value) >= least)) continue;
      const corners = [[0, 0], [1, 0], [1, 1], [0, 1]].map(([right, up], place) =>
        ({ x: column + right, y: row + up, value: around[place] }));
      const crossed = [];
      corners.forEach((a, place) => {
        const b = corners[(place + 1) % 4];
        if (a.value > 0 === b.value > 0) return;
        const share = a.value / (a.value - b.value);
        const [x, y] = [a.x + share * (b.x - a.x), a.y + share * (b.y - a.y)];
        crossed.push(`${((x + 0.5) * cell).toFixed(1)} ${(SIDE - (y + 0.5) * cell).toFixed(1)}`);
      });
      for (let end = 0; end < crossed.length; end += 2) lines.push(`M${crossed[end]}L${crossed[end + 1]}`);
    }
  }
  return lines.join("");
}

// The panel: a map, the points, and a handle for each group. `moved(group, point, to)` is called while something is
// dragged or pushed by the keyboard; `point` is null for a group, and `to` is where the point, or the group's mean, is to be.
function plane({ names, points, extent, grid, shade, contour }, moved) {
  const [left, right, bottom, top] = extent;
  const toPanel = ([x, y]) => [((x - left) / (right - left)) * SIDE, ((top - y) / (top - bottom)) * SIDE];
  const canvas = make("canvas", { width: grid, height: grid });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Map of the witness function: blue where ${names[0]} is denser, orange where ${names[1]} is`);
  const context = canvas.getContext("2d");
  const line = drawn("path", { class: "kd-zero" });
  const marks = points.map((group, number) => group.map(() => (number === 0
    ? drawn("circle", { r: 7, class: "kd-p" })
    : drawn("rect", { x: -6.5, y: -6.5, width: 13, height: 13, class: "kd-q" }))));
  const handles = names.map((name, number) => drawn("g", {
    class: `kd-handle kd-${"pq"[number]}`, tabindex: 0, role: "application",
    "aria-label": `Group ${name}. The arrow keys move it, with Shift in larger steps.`,
  },
  drawn("circle", { r: 24 }), drawn("path", { d: "M-14-4h10v-10h8v10h10v8h-10v10h-8v-10h-10z" }), drawn("text", { y: 8 }, name)));
  const svg = drawn("svg", { viewBox: `0 0 ${SIDE} ${SIDE}` }, line, ...marks.flat(), ...handles);
  const element = make("div", { className: "kd-plane" }, canvas, svg);
  let now = points;
  let grasped = null;

  function show(groups, values) {
    now = groups;
    const image = context.createImageData(grid, grid);
    values.forEach((value, place) => {
      const pixel = 4 * ((grid - 1 - Math.floor(place / grid)) * grid + (place % grid));
      image.data.set([...HEAT[value > 0 ? 0 : 1], 255 * shade * Math.sqrt(Math.min(1, Math.abs(value)))], pixel);
    });
    context.putImageData(image, 0, 0);
    line.setAttribute("d", zeroLine(values, grid, contour));
    const put = (mark, place) => mark.setAttribute("transform", `translate(${toPanel(place).map((at) => at.toFixed(2))})`);
    groups.forEach((group, number) => {
      const mean = meanOf(group);
      group.forEach((point, place) => put(marks[number][place], point));
      put(handles[number], mean);
      const outwards = toPanel(mean)[0] > 0.6 * SIDE;
      const label = handles[number].lastChild;
      label.setAttribute("x", outwards ? -19 : 19);
      label.setAttribute("text-anchor", outwards ? "end" : "start");
    });
  }

  const under = (event) => {
    const box = svg.getBoundingClientRect();
    return [left + ((event.clientX - box.left) / box.width) * (right - left),
      top - ((event.clientY - box.top) / box.height) * (top - bottom)];
  };

  // The handle under the pointer, or else the nearest point within reach.
  function nearest(at) {
    const pixel = (right - left) / svg.getBoundingClientRect().width;
    const near = (found, reach) => found
      .map((one) => ({ ...one, distance: Math.sqrt(squared(one.place, at)) / pixel }))
      .filter(({ distance }) => distance <= reach)
      .sort((a, b) => a.distance - b.distance)[0];
    const means = now.map((group, number) => ({ group: number, point: null, place: meanOf(group) }));
    const single = now.flatMap((group, number) => group.map((place, point) => ({ group: number, point, place })));
    const [mean, point] = [near(means, REACH.handle), near(single, REACH.point)];
    return mean && point && point.distance < 0.5 * mean.distance ? point : mean ?? point;
  }

  svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !event.isPrimary) return;
    const at = under(event);
    grasped = nearest(at) ?? null;
    if (!grasped) return;
    event.preventDefault();
    svg.setPointerCapture(event.pointerId);
    grasped.offset = [0, 1].map((axis) => grasped.place[axis] - at[axis]);
    if (grasped.point === null) handles[grasped.group].focus({ preventScroll: true });
  });
  svg.addEventListener("pointermove", (event) => {
    if (!event.isPrimary) return;
    const at = under(event);
    svg.classList.toggle("kd-near", Boolean(grasped ?? nearest(at)));
    if (grasped) moved(grasped.group, grasped.point, at.map((value, axis) => value + grasped.offset[axis]));
  });
  for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => { grasped = null; });
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  handles.forEach((handle, group) => handle.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in steps)) return;
    event.preventDefault(); // the page does not scroll
    const step = (right - left) / (event.shiftKey ? 10 : 50);
    moved(group, null, meanOf(now[group]).map((value, axis) => value + step * steps[event.key][axis]));
  }));
  return { element, show };
}

KINDS.witness = (root, content) => {
  const { names, extent, grid, octaves, bandwidth, ties, permutations } = content;
  const [low, high] = [[extent[0], extent[2]], [extent[1], extent[3]]];
  const members = relabelings(content);
  const middle = medianRule(content.points.flat());
  let [groups, sigma, pause] = [content.points, bandwidth, null];

  const panel = plane(content, (group, point, to) => {
    const inside = (value, axis, from) => clamp(value, low[axis] - Math.min(...from), high[axis] - Math.max(...from));
    const chosen = point === null ? groups[group] : [groups[group][point]];
    const from = meanOf(chosen);
    const shift = to.map((value, axis) => inside(value - from[axis], axis, chosen.map((one) => one[axis])));
    groups = groups.map((points, number) => points.map((one, place) => (number === group && (point ?? place) === place
      ? one.map((value, axis) => clamp(value + shift[axis], low[axis], high[axis])) : one)));
    draw();
  });
  const id = `kd-live-${(radios.count = (radios.count ?? 0) + 1)}`;
  const slider = make("input", { type: "range", id, min: -8 * octaves, max: 8 * octaves, step: 1 });
  const shown = make("output", { htmlFor: id });
  const median = make("button", { type: "button" });
  const reset = make("button", { type: "button", textContent: "Reset" });
  const rows = ["MMD², unbiased", "MMD², biased", `p-value (${permutations} relabelings)`, "largest |w|"].map((name) => {
    const value = make("span");
    return { value, element: make("div", {}, make("span", { textContent: name }), value) };
  });
  const said = speaker();
  const hint = make("p", {
    className: "kd-note",
    textContent: "Drag a point, or a whole group by its cross. With the keyboard, press Tab to reach a cross and move it by the arrow keys.",
  });
  const numbers = make("div", { className: "kd-numbers" }, ...rows.map(({ element }) => element), hint);
  root.append(
    make("div", { className: "kd-slider" }, make("label", { htmlFor: id, textContent: "Bandwidth σ" }), slider, shown),
    make("div", { className: "kd-buttons" }, median, reset),
    make("div", { className: "kd-beside" }, panel.element, numbers), said);

  function draw() {
    const values = witnessOn(grid, extent, groups, sigma);
    const tested = twoSampleTest(groups, sigma, members, ties);
    const rule = medianRule(groups.flat());
    const most = values.reduce((best, value, place) => (Math.abs(value) > Math.abs(values[best]) ? place : best), 0);
    const largest = {
      value: values[most],
      place: [most % grid, Math.floor(most / grid)].map((cell, axis) => low[axis] + ((cell + 0.5) / grid) * (high[axis] - low[axis])),
    };
    panel.show(groups, values);
    slider.value = Math.round(8 * Math.log2(sigma / middle));
    shown.textContent = significant(sigma);
    slider.setAttribute("aria-valuetext", `σ = ${significant(sigma)}`);
    median.textContent = `Median rule: σ = ${significant(rule)}`;
    const texts = [decimals(tested.unbiased, 4), decimals(tested.biased, 4), decimals(tested.p, 3),
      `${decimals(Math.abs(largest.value), 3)} at (${largest.place.map(significant).join(", ")})`];
    rows.forEach(({ value }, place) => { value.textContent = texts[place]; });
    root.values = { sigma, median: rule, groups, witness: Array.from(values), largest, ...tested };
    clearTimeout(pause);
    pause = setTimeout(say, PAUSE);
  }

  function say() {
    const { unbiased, reached, p } = root.values;
    const apart = Math.sqrt(squared(...groups.map(meanOf)));
    const reach = reached > 1 ? `${reached} reach` : `${reached || "none"} reaches`;
    said.textContent = `At σ\u00a0=\u00a0${significant(sigma)}, with means ${significant(apart)} apart, MMD² is ${decimals(unbiased, 4)}. ` +
      `Of ${permutations} random relabelings, ${reach} it, so p\u00a0=\u00a0${decimals(p, 3)}: ` +
      (p <= 0.05 ? `${names.join(" and ")} differ by more than chance explains (5\u00a0% level).`
        : `no difference between ${names.join(" and ")} is shown at the 5\u00a0% level.`);
  }

  slider.addEventListener("input", () => { sigma = middle * 2 ** (Number(slider.value) / 8); draw(); });
  median.addEventListener("click", () => { sigma = medianRule(groups.flat()) || sigma; draw(); });
  reset.addEventListener("click", () => { [groups, sigma] = [content.points, bandwidth]; draw(); });
  draw();
  say();
};
}
