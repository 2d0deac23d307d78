// Lines over steps, drawn as SVG; a click moves the slider.
import { html } from "./preact.js";
import { colourOf } from "./colours.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM] = [560, 170, 52, 22];

export function Lines({ steps, lines, here = null, move = null, label = "step" }) {
  const shown = Object.entries(lines).filter(([, values]) => values && values.some((value) => value !== null));
  const all = shown.flatMap(([, values]) => values.filter((value) => value !== null));
  if (!all.length) return html`<p class="muted">nothing to draw</p>`;
  const [low, high] = [Math.min(0, ...all), Math.max(...all) || 1];
  const [first, last] = [steps[0], Math.max(steps[steps.length - 1], steps[0] + 1)];
  const x = (step) => LEFT + ((step - first) / (last - first)) * (WIDTH - LEFT - 8);
  const y = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low || 1)) * (HEIGHT - BOTTOM - 8);
  const pathOf = (values) => {
    let text = "";
    values.forEach((value, place) => {
      if (value === null) return;
      const isNew = place === 0 || values[place - 1] === null;
      text += `${isNew ? "M" : "L"}${x(steps[place]).toFixed(1)} ${y(value).toFixed(1)}`;
    });
    return text;
  };
  const click = (event) => {
    if (!move) return;
    const box = event.currentTarget.getBoundingClientRect();
    const place = ((event.clientX - box.left) / box.width) * WIDTH;
    move(Math.round(first + ((place - LEFT) / (WIDTH - LEFT - 8)) * (last - first)));
  };
  return html`<figure class="lines">
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${shown.map(([name]) => name).join(", ")} onClick=${click}>
      ${[low, (low + high) / 2, high].map((value) => html`<g><line class="grid" x1=${LEFT} x2=${WIDTH - 8} y1=${y(value)} y2=${y(value)} />
        <text x=${LEFT - 5} y=${y(value) + 4} text-anchor="end">${short(value)}</text></g>`)}
      ${[first, last].map((step) => html`<text x=${x(step)} y=${HEIGHT - 5} text-anchor=${step === first ? "start" : "end"}>${label} ${step}</text>`)}
      ${here !== null && here >= first ? html`<line class="here" x1=${x(here)} x2=${x(here)} y1="4" y2=${HEIGHT - BOTTOM} />` : null}
      ${shown.map(([name, values]) => html`<path d=${pathOf(values)} fill="none" stroke=${colourOf(name)} stroke-width="1.8" />`)}
    </svg>
    <figcaption class="legend">${shown.length < 2 ? null : shown.map(([name]) => html`<span><i style=${{ background: colourOf(name) }}></i>${name}</span>`)}</figcaption>
  </figure>`;
}

const short = (value) => (Math.abs(value) >= 1000 ? value.toExponential(1) : String(Number(value.toPrecision(2))));
