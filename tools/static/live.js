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

const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;

const KINDS = {
  // Probabilities of classes at a temperature: a picture is chosen by radio buttons, T by a slider in steps of 2^(1/4).
  temperature(root, { classes, top, start, samples }) {
    const group = `kd-live-${(KINDS.count = (KINDS.count ?? 0) + 1)}`;
    const choice = make("fieldset", {}, make("legend", { textContent: "Picture" }));
    samples.forEach(({ picture, label }, number) => {
      const button = make("input", { type: "radio", name: group, value: number, checked: number === 0 });
      choice.append(make("label", {}, button, make("img", { src: picture, alt: `Picture of class ${classes[label]}` })));
    });
    const slider = make("input", {
      type: "range", id: `${group}-t`, min: -8, max: 24, step: 1, value: Math.round(4 * Math.log2(start)),
    });
    const shown = make("output", { htmlFor: slider.id });
    const rows = make("div", { className: "kd-bars" });
    const said = make("p", { className: "kd-said" });
    said.setAttribute("aria-live", "polite");
    const label = make("label", { htmlFor: slider.id, textContent: "Temperature T" });
    root.append(choice, make("div", { className: "kd-slider" }, label, slider, shown), rows, said);

    const draw = () => {
      const sample = samples[Number(choice.querySelector("input:checked").value)];
      const temperature = 2 ** (Number(slider.value) / 4);
      const probabilities = softmax(sample.logits, temperature);
      const order = sample.logits.map((_, c) => c).sort((a, b) => sample.logits[b] - sample.logits[a]);
      const best = order.slice(0, top);
      const rest = order.slice(top).reduce((sum, c) => sum + probabilities[c], 0);
      const bar = (name, share, right) =>
        make("div", { className: right ? "kd-row kd-right" : "kd-row" },
          make("span", { textContent: name }),
          make("span", { className: "kd-track" }, make("span", { className: "kd-bar", style: `width:${100 * share}%` })),
          make("span", { textContent: percent(share) }));
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
};

class Live extends HTMLElement {
  connectedCallback() {
    const source = this.querySelector("script");
    if (!source || this.values) return; // moved within the page
    KINDS[this.getAttribute("kind")](this, JSON.parse(source.textContent));
  }
}
// The script of the page comes before its body is read: wait until the numbers are there.
addEventListener("DOMContentLoaded", () => customElements.define("kd-live", Live));
