// Two to six runs or experiments side by side: one slider for all, and what their configs differ in.
import { html, useEffect, useState } from "./preact.js";
import { experimentPath, get, imageAddress } from "./api.js";
import { address, go, replace } from "./route.js";
import { Badge, Message, network, shortPrompt } from "./parts.js";
import { Slider } from "./slider.js";

const MOST = 6;
const SHOWN_RUNS = 12;

// `of` names them: STORE/EXPERIMENT or STORE/EXPERIMENT/RUN, with commas between them.
export function Side({ place }) {
  const { of = "", step: asked = "0" } = place.query;
  const names = of.split(",").filter(Boolean).slice(0, MOST).map((one) => one.split("/").map(decodeURIComponent));
  const [found, setFound] = useState({});
  const [error, setError] = useState(null);
  useEffect(() => {
    let isHere = true;
    const load = async () => {
      const entries = await Promise.all(names.map(async ([store, experiment, run]) => {
        const path = experimentPath(store, experiment);
        const [about, runs] = await Promise.all([
          get(path), run ? get(`${path}/runs/${run}`).then((one) => ({ total: 1, runs: [one] })) : get(`${path}/runs`, { limit: SHOWN_RUNS }),
        ]);
        return [[store, experiment, run].join("/"), { about, ...runs, path }];
      }));
      if (isHere) setFound(Object.fromEntries(entries));
    };
    setError(null);
    load().catch((problem) => isHere && setError(problem));
    return () => (isHere = false);
  }, [of]);
  const columns = names.map((name) => [name, found[name.join("/")]]).filter(([, one]) => one);
  const max = Math.max(0, ...columns.map(([, one]) => one.about.max_length - 1));
  const step = Math.min(Number(asked) || 0, max);
  const move = (next) => replace(["side"], { of, step: next === "last" ? max : next });
  return html`
    <h1>Side by side</h1>
    <form class="bar" onSubmit=${(e) => (e.preventDefault(), go(["side"], { of: e.target.elements.of.value.trim(), step: asked }))}>
      <label>of <input data-search name="of" size="50" key=${of} defaultValue=${of} placeholder="0/demo/3,0/demo/4" /></label><button>Show</button>
      <span class="muted">STORE/EXPERIMENT or STORE/EXPERIMENT/RUN, up to ${MOST}</span></form>
    <${Message} error=${error} />
    ${columns.length ? html`<${Slider} step=${step} max=${max} move=${move} />` : null}
    <div class="sides" style=${{ gridTemplateColumns: `repeat(${Math.max(1, columns.length)}, minmax(150px, 1fr))` }}>
      ${columns.map(([name, one]) => html`<${Column} key=${name.join("/")} ...${{ name, one, step }} />`)}
    </div>
    ${columns.length > 1 ? html`<${Differences} columns=${columns} />` : null}`;
}

function Column({ name: [store, experiment], one, step }) {
  const [cells, setCells] = useState([]);
  useEffect(() => {
    const stop = new AbortController();
    get(`${one.path}/cells`, { runs: one.runs.map((run) => run.run).join(","), step, before: 1 }, stop.signal)
      .then((answer) => setCells(answer.cells), () => {});
    return () => stop.abort();
  }, [one.path, step]);
  return html`<section class="card">
    <h2><a href=${address([store, experiment])}>${experiment}</a> <${Badge} state=${one.about.state} /></h2>
    ${one.runs.map((run) => {
      const own = cells.filter((cell) => cell.run === run.run);
      return html`<article key=${run.run} data-run=${run.run}>
        <a href=${address([store, experiment, "run", String(run.run)], { step })}><b>run ${run.run}</b></a> <${Badge} state=${run.state} />
        <small class="muted">${network(run.network)} · seed ${run.seed} · ${run.arm} · ${shortPrompt(run.prompt).slice(0, 80)}</small>
        ${own.map((cell) => cell.modality === "image"
          ? html`<img class="wide" src=${imageAddress(store, cell.digest, 256)} data-digest=${cell.digest} data-step=${cell.step} alt=${`step ${cell.step}`} />`
          : html`<p dir="auto" data-digest=${cell.digest} data-step=${cell.step}>${cell.text}</p>`)}
        ${own.length ? null : html`<p class="muted">nothing at step ${step}</p>`}
      </article>`;
    })}
    ${one.total > one.runs.length ? html`<p class="muted">and ${one.total - one.runs.length} more runs on the wall</p>` : null}
  </section>`;
}

function flat(value, at = "", found = {}) {
  if (value && typeof value === "object" && Object.keys(value).length) {
    for (const [key, inner] of Object.entries(value)) flat(inner, at ? `${at}.${key}` : key, found);
  } else found[at] = JSON.stringify(value);
  return found;
}

function Differences({ columns }) {
  const all = columns.map(([name, one]) => [name.slice(1).join(" run "), flat(one.about.config)]);
  const keys = [...new Set(all.flatMap(([, config]) => Object.keys(config)))];
  const different = keys.filter((key) => new Set(all.map(([, config]) => config[key])).size > 1).slice(0, 200);
  return html`<section class="card"><h2>Differences of the configs</h2>
    ${different.length ? html`<div class="scroll"><table><thead><tr><th></th>${all.map(([name]) => html`<th>${name}</th>`)}</tr></thead>
      <tbody>${different.map((key) => html`<tr><td><code>${key}</code></td>${all.map(([, config]) => html`<td>${config[key] ?? "–"}</td>`)}</tr>`)}</tbody></table></div>`
      : html`<p class="muted">none</p>`}</section>`;
}
