// Trainings that the server was told of: curves, and samples by step with one slider.
import { html, useEffect, useState } from "./preact.js";
import { address, replace } from "./route.js";
import { Message, useAnswer } from "./parts.js";
import { Lines } from "./lines.js";
import { Slider } from "./slider.js";

export function Trainings({ place }) {
  const number = place.parts[1];
  const { found, error } = useAnswer("trainings", {}, { isLive: false });
  return html`<h1>Trainings</h1><${Message} error=${error} />
    <nav class="bar shards">${found ? found.trainings.map((one) => html`<a class=${one.training === number ? "here" : ""} href=${address(["trainings", one.training])}>${one.name}</a>`) : null}</nav>
    ${number ? html`<${Training} key=${number} ...${{ number, place }} />` : null}`;
}

function Training({ number, place }) {
  const [round, setRound] = useState(0);
  const { found, error } = useAnswer(`trainings/${encodeURIComponent(number)}`, { round }, { isLive: false });
  useEffect(() => {
    const timer = setInterval(() => setRound((now) => now + 1), 5000);
    return () => clearInterval(timer);
  }, []);
  if (!found) return html`<${Message} error=${error} />`;
  const asked = Math.min(Number(place.query.sample ?? found.samples.length - 1), found.samples.length - 1);
  const move = (next) => replace(["trainings", number], { sample: next === "last" ? found.samples.length - 1 : next });
  const curves = Object.entries(found.curves).flatMap(([curve, columns]) =>
    Object.entries(columns).filter(([name]) => name !== "step").map(([name, values]) => [curve, name, columns.step, values]));
  const chosen = found.samples[asked];
  return html`<${Message} error=${error} />
    ${chosen ? html`<section class="card"><h2>Samples <small class="muted">of training step ${chosen.step}</small></h2>
      <${Slider} step=${asked} max=${found.samples.length - 1} move=${move}
        told=${`evaluation ${asked + 1} of ${found.samples.length}`} /><${Sample} ...${{ number, chosen }} /></section>` : null}
    <div class="two">${curves.map(([curve, name, steps, values]) => html`<section class="card" key=${curve + name}><h2>${name} ${curve === name ? null : html`<small class="muted">${curve}.csv</small>`}</h2>
      <${Lines} steps=${steps} lines=${{ [name]: values }} here=${chosen ? chosen.step : null} /></section>`)}</div>
    ${curves.length ? null : html`<p class="muted">Nothing was written down yet.</p>`}`;
}

function Sample({ number, chosen }) {
  const path = `trainings/${encodeURIComponent(number)}/samples/${chosen.step}`;
  const { found } = useAnswer(chosen.is_image ? "" : path, {}, { isLive: false });
  if (chosen.is_image) return html`<img class="large" src=${`/api/1/${path}`} alt=${`samples of step ${chosen.step}`} />`;
  return html`<pre>${found ? found.text : ""}</pre>`;
}
