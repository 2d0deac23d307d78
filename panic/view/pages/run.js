// A run: its whole strip, what changes from text to text, how far it moves, where its outputs have been before.
import { html, useCallback, useEffect, useRef, useState } from "./preact.js";
import { bundle, experimentPath, get, imageAddress, onChange } from "./api.js";
import { address, replace } from "./route.js";
import { Badge, Message, count, duration, isImage, moment, network, useAnswer } from "./parts.js";
import { Lines } from "./lines.js";
import { Remarks } from "./remarks.js";
import { Slider } from "./slider.js";
import { Marked } from "./words.js";

const PIECE = 200;

export function Run({ place, store, experiment }) {
  const number = place.parts[3];
  const path = `${experimentPath(store, experiment)}/runs/${encodeURIComponent(number)}`;
  const { found: run, error } = useAnswer(path);
  if (!run) return html`<${Message} error=${error} />`;
  return html`<${Whole} key=${path} ...${{ run, path, place, store, experiment, error }} />`;
}

function Whole({ run, path, place, store, experiment, error }) {
  const [steps, setSteps] = useState([]);
  const [failure, setFailure] = useState(null);
  const asked = Number(place.query.step || 0);
  const here = steps.length ? Math.min(asked, run.num_steps - 1) : asked;
  const move = useCallback(
    (step) => replace([store, experiment, "run", String(run.run)], { step: step === "last" ? run.num_steps - 1 : step }),
    [run.num_steps]
  );
  useEffect(() => {
    let isHere = true;
    const load = async () => {
      try {
        let found = steps;
        while (isHere && found.length < run.num_steps) {
          const page = await get(`${path}/steps`, { offset: found.length, limit: PIECE });
          if (!page.steps.length) break;
          found = [...found, ...page.steps];
          if (isHere) setSteps(found);
        }
      } catch (problem) {
        if (isHere) setFailure(problem);
      }
    };
    load();
    return () => (isHere = false);
  }, [run.num_steps]);
  const seen = new Map();
  steps.forEach((step) => seen.set(step.output, [...(seen.get(step.output) || []), step.step]));
  const chosen = steps[here];
  return html`
    <div class="bar">
      <h1><a href=${address([store, experiment])}>${experiment}</a> · run ${run.run} <${Badge} state=${run.state} /></h1>
      <span class="muted">${network(run.network)} · seed ${run.seed} · repeat ${run.repeat} · ${run.arm} · ${run.uid}</span>
      ${bundle ? null : html`<a href=${address(["side"], { of: `${store}/${experiment}/${run.run}`, step: here })}>side by side</a>
        <a href=${address([store, experiment, "map"], { run: run.run })}>on the map</a>`}
    </div>
    <p class="plain" dir="auto"><span class="muted">prompt: </span>${isImage(run.prompt)
      ? html`<img class="inline" src=${imageAddress(store, run.prompt.slice(6), 96)} alt="the prompt" />`
      : run.prompt}${run.prompt_length > run.prompt.length ? "…" : ""}</p>
    ${run.state === "stuck"
      ? html`<p class="plain">Stuck since model call ${run.entry_step} with a period of ${run.period} model calls: all that follows is known.</p>`
      : null}
    ${run.repeated ? html`<p class="plain">Ended on request: ${run.repeated.times} times through ${run.repeated.period} model calls.</p>` : null}
    ${run.failure ? html`<p class="plain alarm">Failed at model call ${run.failure.step} (${run.failure.kind}, ${run.failure.attempts} attempts): ${run.failure.message}</p>` : null}
    <${Message} error=${error || failure} />
    ${run.num_steps ? html`<${Slider} step=${here} max=${run.num_steps - 1} move=${move} />` : html`<p class="muted">It has no step yet.</p>`}
    <${Strip} ...${{ steps, here, seen, store, experiment, run }} />
    <div class="two">
      ${chosen ? html`<${Step} ...${{ step: chosen, steps, seen, store, experiment, run }} />` : null}
      ${bundle || !steps.length ? null : html`<${Motion} ...${{ path, here, move }} />`}
    </div>
    <${Remarks} store=${store} experiment=${experiment} run=${run.run} of=${run} />
  `;
}

function Strip({ steps, here, seen, store, experiment, run }) {
  const strip = useRef(null);
  useEffect(() => {
    const tile = strip.current && strip.current.querySelector(".current");
    if (tile) tile.scrollIntoView({ block: "nearest", inline: "center" });
  }, [here, steps.length > 0]);
  return html`<div class="strip" ref=${strip} role="list" aria-label="steps">
    ${steps.map((step) => {
      const isBack = seen.get(step.output)[0] < step.step;
      const isCycle = run.state === "stuck" && step.step >= run.entry_step;
      const before = step.modality === "text" ? textBefore(steps, step.step, run) : null;
      return html`<a role="listitem" key=${step.step} data-step=${step.step} data-digest=${step.output}
        class=${`piece ${step.step === here ? "current" : ""} ${isBack ? "back" : ""} ${isCycle ? "cycle" : ""}`}
        href=${address([store, experiment, "run", String(run.run)], { step: step.step })}>
        ${step.modality === "image"
          ? html`<img loading="lazy" decoding="async" width="112" height="112" src=${imageAddress(store, step.output, 112)} alt=${nextText(steps, step.step)} />`
          : html`<span class="words" dir="auto"><${Marked} before=${before} after=${step.text} /></span>`}
        <small>${step.step}${isBack ? " ↺" : ""}</small>
      </a>`;
    })}
  </div>`;
}

function textBefore(steps, number, run) {
  for (let one = number - 1; one >= 0; one -= 1) if (steps[one].modality === "text") return steps[one].text;
  return isImage(run.prompt) ? null : run.prompt;
}

const nextText = (steps, number) => {
  const next = steps[number + 1];
  return next && next.modality === "text" ? next.text : `image of step ${number}`;
};

function Step({ step, steps, seen, store, experiment, run }) {
  const [isFull, setFull] = useState(false);
  useEffect(() => setFull(false), [step.output]);
  const { found, error } = useAnswer(bundle ? "" : `stores/${store}/outputs/${step.output}`, {}, { isLive: false });
  const own = seen.get(step.output) || [];
  const is = found && found.digest === step.output ? found : null;
  const before = step.modality === "text" ? textBefore(steps, step.step, run) : null;
  const elsewhere = is ? is.places.filter((one) => !(one.experiment === experiment && one.run === run.run)) : [];
  return html`<section class="card step" data-shown=${step.output}>
    <h2>step ${step.step} <small class="muted">${step.model} · seed ${step.seed} · ${step.device} · ${duration(step.duration_s)} for its batch · ${moment(step.started_at)}</small></h2>
    ${step.modality === "image"
      ? html`<img class="large" src=${imageAddress(store, step.output)} alt=${nextText(steps, step.step)} />`
      : html`<p dir="auto" class="long">${isFull && is ? is.text : html`<${Marked} before=${before} after=${step.text} />`}</p>
          ${step.text_length > step.text.length && !isFull ? html`<button onClick=${() => setFull(true)}>All ${count(step.text_length)} characters</button>` : null}`}
    <p class="muted"><code>${step.output.slice(0, 16)}</code>
      ${own.length > 1 ? ` In this run at steps ${own.slice(0, 20).join(", ")}${own.length > 20 ? " …" : "."}` : " Only once in this run."}
      ${is && is.total > own.length ? ` In the store ${count(is.total)} times:` : is ? " Nowhere else in the store." : ""}
      ${elsewhere.slice(0, 12).map((one, place) => html`${place ? "," : ""} <a href=${address([store, one.experiment, "run", String(one.run)], { step: one.step })}>${one.experiment === experiment ? "" : `${one.experiment} `}run ${one.run} at ${one.step}</a>`)}</p>
    <${Message} error=${error} />
  </section>`;
}

function Motion({ path, here, move }) {
  const { found, error } = useAnswer(`${path}/motion`, {}, { least: 3000 });
  if (error) return html`<section class="card"><${Message} error=${error} /></section>`;
  if (!found || !found.models.length) return html`<section class="card"><h2>Distances</h2><p class="muted">${found ? "There are no vectors of this run yet." : "…"}</p></section>`;
  return html`<section class="card"><h2>Distances</h2>
    ${found.models.map((one) => html`<div key=${one.model + one.modality}>
      <h3>${one.model} <small class="muted">of ${one.modality}s, 1 − cosine</small></h3>
      <${Lines} steps=${one.steps} here=${here} move=${move} lines=${{ "to the first": one.to_first, "to the prompt": one.to_prompt, "to the one before": one.to_before }} />
    </div>`)}
  </section>`;
}
