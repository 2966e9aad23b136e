// Curves of what was measured at some settings, along which the reader moves; a prediction may come first.
// A kind of figure for live.js, which comes before this script. The sentences are written where it was measured.
"use strict";

{ // names of its own: other kinds of figures may be on the page
const [TOP, PLOT, RIGHT] = [10, 170, 10]; // pixels above the plot, of it, and beside it

// One panel. `state()` tells the setting, and the prediction in this panel if there is one.
function chart({ title, ticks, labels, series }, { settings, series: names, slider }, state) {
  const longest = Math.max(...settings.map((text) => text.length)) * LETTER;
  const bottom = ticks[0];
  const top = ticks[ticks.length - 1];
  const down = (value) => TOP + PLOT * (top - value) / (top - bottom);

  const { svg, again } = drawing(`Curves of ${title}; their values stand in the sentence below.`, (svg, width) => {
    let left = Math.max(...labels.map((text) => text.length)) * LETTER + 12;
    const tilted = longest > (width - left - RIGHT) / settings.length - 4;
    if (tilted) left = Math.max(left, 0.75 * longest - (width - left - RIGHT) / settings.length / 2 + 4);
    const slot = (width - left - RIGHT) / settings.length;
    const across = (place) => left + (place + 0.5) * slot;
    const height = TOP + PLOT + (tilted ? 0.75 * longest + 18 : 22);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    const line = (name, x, y, to) => drawn("path", { class: name, d: `M${x} ${y}${to}` });
    ticks.forEach((tick, place) => svg.append(line("kd-grid", left, down(tick), `H${width - RIGHT}`),
      drawn("text", { x: left - 6, y: down(tick) + 4, "text-anchor": "end" }, labels[place])));
    const under = TOP + PLOT + 17;
    settings.forEach((text, place) => svg.append(drawn("text", tilted
      ? { transform: `translate(${across(place) + 4} ${under - 3}) rotate(-45)`, "text-anchor": "end" }
      : { x: across(place), y: under, "text-anchor": "middle" }, text)));

    const { at, guess } = state();
    svg.append(line("kd-now", across(at), TOP, `V${TOP + PLOT}`));
    for (const [name, values] of Object.entries(series)) {
      const number = names.indexOf(name);
      const curve = drawn("g", { class: `kd-curve kd-ink-${number}`, "data-series": name });
      const runs = []; // of neighbors that were measured
      values.forEach((value, place) => {
        if (!value) return;
        if (!values[place - 1]) runs.push([]);
        runs[runs.length - 1].push(place);
      });
      const path = (run, end) => run.map((place) => `${across(place).toFixed(2)} ${down(values[place][end]).toFixed(2)}`).join("L");
      for (const run of runs) {
        const banded = run.filter((place) => values[place].length > 1);
        if (banded.length === run.length) {
          curve.append(drawn("path", { class: "kd-band", d: `M${path(run, 1)}L${path([...run].reverse(), 2)}Z` }));
        }
        for (const place of banded) {
          curve.append(line("kd-ends", across(place), down(values[place][1]), `V${down(values[place][2])}`));
        }
        curve.append(drawn("path", { class: "kd-curved", d: `M${path(run, 0)}` }));
      }
      values.forEach((value, place) => {
        if (value) curve.append(mark(number, across(place), down(value[0]), place === at ? 7 : 3.5, place === at ? "kd-mark kd-dot" : "kd-mark"));
      });
      svg.append(curve);
    }
    if (guess) {
      svg.append(line("kd-guess", left, down(guess.value), `H${width - RIGHT}`),
        mark(2, across(guess.at), down(guess.value), 6, "kd-guess kd-guessed"));
    }
  });
  const element = make("div", { className: "kd-panel" }, make("p", { className: "kd-title", textContent: title }), svg,
    make("p", { className: "kd-axis", textContent: slider }));
  element.lastChild.setAttribute("aria-hidden", "true"); // the slider below has this name
  return { element, again };
}

// The points at one setting, [x, y, class], x and y between 0 and 1.
function pointsOf(text, classes) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const count = bytes.length / (classes ? 5 : 4);
  return Array.from({ length: count }, (_, place) =>
    [...[0, 2].map((byte) => view.getUint16(4 * place + byte, true) / 65535), classes ? bytes[4 * count + place] : null]);
}

// The square panel of points.
function square({ groups, classes, settings: written }, { settings, slider }, state) {
  const points = written.map((texts) => texts.map((text) => pointsOf(text, classes.length > 0)));
  const title = make("p", { className: "kd-title" });
  const { svg, again } = drawing("", (svg, side) => {
    const { at } = state();
    title.textContent = `${groups.join(" and ")}, ${slider}: ${settings[at]}`;
    svg.setAttribute("aria-label", `Points in the plane: ${title.textContent}`);
    svg.setAttribute("viewBox", `0 0 ${side} ${side}`);
    svg.setAttribute("height", side);
    svg.append(drawn("path", { class: "kd-grid", d: `M.5.5H${side - 0.5}V${side - 0.5}H.5Z` }));
    // Taken from the groups in turn, so that none covers the other.
    const all = points[at].flatMap((group, number) => group.map((point, place) => ({ point, number, turn: place / group.length })));
    all.sort((a, b) => a.turn - b.turn);
    svg.append(drawn("g", { class: "kd-curve" }, ...all.map(({ point: [x, y, kind], number }) =>
      mark(number, x * side, (1 - y) * side, 4, `kd-mark kd-ink-${kind ?? number}`))));
  });
  const keys = [...groups.map((name, number) => [name, classes.length ? "" : `kd-ink-${number}`, number]),
    ...classes.map((name, number) => [name, `kd-ink-${number}`, null])];
  return { element: make("div", { className: "kd-panel kd-square" }, title, svg, key(keys)), again, points };
}

KINDS.curves = (root, content) => {
  const { slider: name, settings, start, series, panels, said: sentences, cloud, question } = content;
  const id = `kd-live-${(radios.count = (radios.count ?? 0) + 1)}`;
  const slider = make("input", { type: "range", id, min: 0, max: settings.length - 1, step: 1, value: start });
  const shown = make("output", { htmlFor: id });
  shown.style.minWidth = `${Math.max(...settings.map((text) => text.length))}ch`; // the slider keeps its width
  const said = speaker();
  let prediction = null;
  let locked = !question;
  const state = (panel) => () => ({
    at: Number(slider.value), guess: question && panel === question.panel ? { at: question.at, value: prediction } : null,
  });
  const parts = panels.map((panel, place) => chart(panel, content, state(place)));
  if (cloud) parts.push(square(cloud, content, state(null)));

  const draw = () => {
    const at = Number(slider.value);
    parts.forEach(({ again }) => again());
    shown.textContent = settings[at];
    slider.setAttribute("aria-valuetext", settings[at]);
    said.textContent = locked ? sentences[at] : "";
    root.values = {
      at, locked, prediction, setting: settings[at], points: locked && cloud ? parts[panels.length].points[at] : null,
      panels: locked ? panels.map((panel) => Object.fromEntries(
        Object.entries(panel.series).map(([one, values]) => [one, values[at]]))) : null,
    };
  };

  if (question) asked(root, slider, question, (value) => { prediction = value; draw(); }, () => { locked = true; draw(); });
  slider.addEventListener("input", draw);
  root.append(make("div", { className: "kd-slider" }, make("label", { htmlFor: id, textContent: name }), slider, shown));
  if (series.length > 1) root.append(key(series.map((one, number) => [one, `kd-ink-${number}`, number])));
  root.append(make("div", { className: "kd-panels" }, ...parts.map(({ element }) => element)), said);
  draw();
};
}
