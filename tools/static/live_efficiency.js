// Accuracy against the number of labels: the reader moves a target, and reads how many labels each start needs for it.
// A kind of figure for live.js, which comes before this script.
"use strict";

{ // names of its own: other kinds of figures may be on the page
const [TOP, PLOT, RIGHT, SIDE] = [12, 210, 16, 12]; // pixels above the plot, of it, beside it, and left of the first count

// Where a curve first reaches the goal, between the counts on a logarithmic scale. `state` says whether it does:
// "first" if the smallest count is enough, "never" if the largest is not; `labels` is then that count.
function needed(counts, values, goal) {
  const known = counts.map((count, place) => [count, values[place]]).filter(([, value]) => value);
  const at = known.findIndex(([, value]) => value[0] >= goal);
  if (at < 0) return { labels: known[known.length - 1][0], state: "never" };
  if (at === 0) return { labels: known[0][0], state: "first" };
  const [[before, [low]], [after, [high]]] = [known[at - 1], known[at]];
  return { labels: before * (after / before) ** ((goal - low) / (high - low)), state: "between" };
}

const brief = (value) => value.toFixed(value < 9.95 ? 1 : 0);

function inWords({ labels, state }) {
  if (state === "never") return `not reached with ${labels}`;
  return state === "first" ? `${labels} or fewer` : brief(labels);
}

// How many times as many labels the first one needs as the second: a bound where one of them is not between the counts.
function factor([first, second], [one, other]) {
  if (one.state === "never" && other.state === "never") return "Neither start reaches that here.";
  if (one.state === "first" && other.state === "first") return "";
  const ratio = one.labels / other.labels;
  if (one.state === "never" || other.state === "first") {
    return `${first} needs ${one.state === "never" ? "more than" : "at least"} ${brief(ratio)} times as many as ${second}.`;
  }
  if (other.state === "never" || one.state === "first") {
    return `${second} needs ${other.state === "never" ? "more than" : "at least"} ${brief(1 / ratio)} times as many as ${first}.`;
  }
  return ratio >= 1 ? `${first} needs ${brief(ratio)} times as many as ${second}.`
    : `${second} needs ${brief(1 / ratio)} times as many as ${first}.`;
}

KINDS.efficiency = (root, content) => {
  const { title, unit, per, counts, ticks, labels, series, between, target, question } = content;
  const id = `kd-live-${(radios.count = (radios.count ?? 0) + 1)}`;
  const slider = make("input", { type: "range", id, min: target.low, max: target.high, step: target.step, value: target.start });
  const shown = make("output", { htmlFor: id });
  const said = speaker();
  const [bottom, top] = [ticks[0], ticks[ticks.length - 1]];
  const down = (value) => TOP + PLOT * (top - value) / (top - bottom);
  const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
  let prediction = null;
  let locked = !question;

  const { svg, again } = drawing(`Curves of ${title} against ${per}; what they say is in the sentence below.`, (svg, width) => {
    const left = Math.max(...labels.map((text) => text.length)) * LETTER + 12;
    const [low, high] = [counts[0], counts[counts.length - 1]].map(Math.log);
    const across = (count) => left + SIDE + (width - left - RIGHT - 2 * SIDE) * (Math.log(count) - low) / (high - low);
    const height = TOP + PLOT + 22;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    const line = (name, x, y, to) => drawn("path", { class: name, d: `M${x} ${y}${to}` });
    ticks.forEach((tick, place) => svg.append(line("kd-grid", left, down(tick), `H${width - RIGHT}`),
      drawn("text", { x: left - 6, y: down(tick) + 4, "text-anchor": "end" }, labels[place])));
    counts.forEach((count) => svg.append(drawn("text", { x: across(count), y: height - 5, "text-anchor": "middle" }, String(count))));
    const goal = Number(slider.value);
    svg.append(line("kd-now", left, down(goal), `H${width - RIGHT}`));
    series.forEach(({ name, values }, number) => {
      const curve = drawn("g", { class: `kd-curve kd-ink-${number}`, "data-series": name });
      const known = counts.map((count, place) => [across(count), values[place]]).filter(([, value]) => value);
      const path = (rows, end) => rows.map(([x, value]) => `${x.toFixed(2)} ${down(value[end]).toFixed(2)}`).join("L");
      if (known.every(([, value]) => value.length > 1)) {
        curve.append(drawn("path", { class: "kd-band", d: `M${path(known, 1)}L${path([...known].reverse(), 2)}Z` }));
      }
      curve.append(drawn("path", { class: "kd-curved", d: `M${path(known, 0)}` }));
      known.forEach(([x, value]) => curve.append(mark(number, x, down(value[0]), 3.5, "kd-mark")));
      const { labels: found, state } = needed(counts, values, goal);
      if (state === "between") {
        curve.append(line("kd-fall", across(found), down(goal), `V${TOP + PLOT}`), mark(number, across(found), down(goal), 7, "kd-mark kd-dot"));
      }
      svg.append(curve);
    });
    if (prediction !== null && prediction >= counts[0] && prediction <= counts[counts.length - 1]) {
      svg.append(mark(2, across(prediction), down(question.target), 6, "kd-guess kd-guessed"));
    }
    const grip = drawn("circle", { class: "kd-grip", cx: width - RIGHT, cy: down(goal), r: 9 });
    grip.addEventListener("pointerdown", hold);
    svg.append(grip);
  });

  // The line can be dragged by its grip, too.
  function hold(event) {
    if (slider.disabled || event.button !== 0) return;
    event.preventDefault(); // no text is marked
    svg.setPointerCapture(event.pointerId); // the grip is drawn anew at each step
    const move = ({ clientY }) => {
      slider.value = top - (clientY - svg.getBoundingClientRect().top - TOP) / PLOT * (top - bottom);
      draw();
    };
    svg.addEventListener("pointermove", move);
    svg.addEventListener("lostpointercapture", () => svg.removeEventListener("pointermove", move), { once: true });
  }

  const draw = () => {
    const goal = Number(slider.value);
    const text = unit ? `${goal.toFixed(target.digits)}\u00a0${unit}` : goal.toFixed(target.digits);
    const found = series.map(({ values }) => needed(counts, values, goal));
    again();
    shown.textContent = text;
    slider.setAttribute("aria-valuetext", text);
    const each = series.map(({ name }, number) => `${name} ${inWords(found[number])}`).join(", ");
    const pair = between && factor(between.map((number) => series[number].name), between.map((number) => found[number]));
    said.textContent = locked ? `${capital(per)} for ${text}: ${each}.${pair ? ` ${capital(pair)}` : ""}` : "";
    root.values = { target: goal, locked, prediction, needed: locked ? Object.fromEntries(
      series.map(({ name }, number) => [name, found[number]])) : null };
  };

  if (question) asked(root, slider, question, (value) => { prediction = value; draw(); }, () => { locked = true; draw(); });
  slider.addEventListener("input", draw);
  root.append(make("div", { className: "kd-slider" }, make("label", { htmlFor: id, textContent: "Target" }), slider, shown),
    key(series.map(({ name }, number) => [name, `kd-ink-${number}`, number])));
  const axis = make("p", { className: "kd-axis", textContent: per });
  root.append(make("div", { className: "kd-panels" }, make("div", { className: "kd-panel" },
    make("p", { className: "kd-title", textContent: title }), svg, axis)), said);
  draw();
};
}
