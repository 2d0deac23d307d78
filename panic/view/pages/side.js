// Two to six runs or experiments side by side: one slider for all, what they differ in, how their metrics compare.
import { html, useEffect, useState } from "./preact.js";
import { bundle, experimentPath, get, imageAddress } from "./api.js";
import { address, decoded, go, replace } from "./route.js";
import { Badge, Message, count, disagreement, network, shortPrompt } from "./parts.js";
import { Rows } from "./rows.js";
import { countsPath, together } from "./shards.js";
import { Slider } from "./slider.js";

const MOST = 6;
const SHOWN_RUNS = 12;

// `of` names them: STORE/EXPERIMENT or STORE/EXPERIMENT/RUN, with commas between them; 0+1 are stores with shards.
export function Side({ place }) {
  const { step: asked = "0" } = place.query;
  const of = (place.query.of || "").replace(/[\d ]+\//g, (keys) => keys.replaceAll(" ", "+")); // in a query + is a space
  const names = of.split(",").filter(Boolean).slice(0, MOST).map((one) => one.split("/").map(decoded));
  const [found, setFound] = useState({});
  const [error, setError] = useState(null);
  useEffect(() => {
    let isHere = true;
    const load = async () => {
      const entries = await Promise.all(names.map(async (name) => {
        const [keys, experiment, run] = name;
        const stores = keys.split("+");
        const [parts, counted, runs] = await Promise.all([
          Promise.all(stores.map((store) => get(experimentPath(store, experiment)))),
          stores.length > 1 ? get(countsPath(stores, experiment)) : null,
          run ? get(`${experimentPath(keys, experiment)}/runs/${run}`).then((one) => [{ ...one, store: keys }])
            : new Rows(stores, experiment, {}).first(SHOWN_RUNS),
        ]);
        const about = together(parts, counted?.counts);
        return [name.join("/"), { about, runs, total: run ? 1 : about.counts.runs }];
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
      <span class="muted">STORE/EXPERIMENT or STORE/EXPERIMENT/RUN, up to ${MOST}; 0+1/EXPERIMENT has its shards together</span></form>
    <${Message} error=${error} />
    ${columns.length ? html`<${Slider} step=${step} max=${max} move=${move} />` : null}
    <div class="sides" style=${{ gridTemplateColumns: `repeat(${Math.max(1, columns.length)}, minmax(150px, 1fr))` }}>
      ${columns.map(([name, one]) => html`<${Column} key=${name.join("/")} ...${{ name, one, step }} />`)}
    </div>
    ${names.length > 1 && !bundle ? html`<${Compared} of=${of} />` : null}`;
}

function Column({ name: [keys, experiment], one, step }) {
  const [cells, setCells] = useState([]);
  useEffect(() => {
    const stop = new AbortController();
    const stores = [...new Set(one.runs.map((run) => run.store))];
    Promise.all(stores.map(async (own) => {
      const runs = one.runs.filter((run) => run.store === own).map((run) => run.run).join(",");
      const answer = await get(`${experimentPath(own, experiment)}/cells`, { runs, step, before: 1 }, stop.signal);
      return answer.cells.map((cell) => ({ ...cell, store: own }));
    })).then((all) => setCells(all.flat()), () => {});
    return () => stop.abort();
  }, [one, step]);
  return html`<section class="card">
    <h2><a href=${address([keys, experiment])}>${experiment}</a> <${Badge} state=${one.about.state} /></h2>
    ${one.runs.map((run) => {
      const own = cells.filter((cell) => cell.run === run.run && cell.store === run.store);
      return html`<article key=${`${run.store}:${run.run}`} data-run=${run.run}>
        <a href=${address([run.store, experiment, "run", String(run.run)], { step })}><b>run ${run.run}</b></a> <${Badge} state=${run.state} />
        <small class="muted">${network(run.network)} · seed ${run.seed}${run.repeat ? ` · repeat ${run.repeat}` : ""} · ${run.arm} · ${shortPrompt(run.prompt).slice(0, 80)}</small>
        ${own.map((cell) => cell.modality === "image"
          ? html`<img class="wide" src=${imageAddress(run.store, cell.digest, 256)} data-digest=${cell.digest} data-step=${cell.step} alt=${`step ${cell.step}`} />`
          : html`<p dir="auto" data-digest=${cell.digest} data-step=${cell.step}>${cell.text}</p>`)}
        ${own.length ? null : html`<p class="muted">nothing at step ${step}</p>`}
      </article>`;
    })}
    ${one.total > one.runs.length ? html`<p class="muted">and ${one.total - one.runs.length} more runs on the wall</p>` : null}
  </section>`;
}

// What they differ in and how their metrics compare, in the words of `panic compare`.
function Compared({ of }) {
  const [{ found, error }, setState] = useState({ found: null, error: null });
  useEffect(() => {
    const stop = new AbortController();
    setState({ found: null, error: null });
    get("side", { of }, stop.signal).then(
      (answer) => setState({ found: answer, error: null }),
      (problem) => problem.name !== "AbortError" && setState({ found: null, error: problem })
    );
    return () => stop.abort();
  }, [of]);
  if (error) return html`<${Message} error=${error} />`;
  if (!found) return html`<p class="muted" role="status">They are being compared …</p>`;
  const names = found.experiments;
  const others = names.slice(1);
  return html`<${Message} error=${disagreement(found.conflicts)} />
    <section class="card" data-compared><h2>Metrics</h2>
    ${found.metrics.length ? html`<div class="scroll"><table>
      <thead><tr><th>metric</th>${names.map((name) => html`<th>${name}</th>`)}${others.map((name) => html`<th>${name} − ${names[0]}</th>`)}</tr></thead>
      <tbody>${found.metrics.map((row) => html`<tr key=${row.metric}><td><code>${row.metric}</code></td>
        ${row.summaries.map((one) => html`<td>${mean(one)}</td>`)}${row.comparisons.map((one) => html`<td data-difference=${one.difference}>${difference(one)}</td>`)}</tr>`)}</tbody></table></div>
      <p class="muted">${found.caveat}</p>` : html`<p class="muted">None of them has runs that have ended: there is nothing to measure yet.</p>`}</section>
    <section class="card"><h2>Differences</h2>
    ${found.differences.length ? html`<div class="scroll"><table><thead><tr><th></th>${names.map((name) => html`<th>${name}</th>`)}</tr></thead>
      <tbody>${found.differences.map((one) => html`<tr><td><small class="muted">${one.section}</small> <code>${one.field}</code></td>
        ${names.map((name) => html`<td dir="auto">${one.values[name]}</td>`)}</tr>`)}</tbody></table></div>`
      : html`<p class="muted">They do not differ in config, models, code, versions or hardware.</p>`}</section>`;
}

const digits = (value, number = 4) => String(Number(value.toPrecision(number)));

function mean(one) {
  if (one.mean === null) return "–";
  return html`${digits(one.mean)}${one.spread === null ? "" : ` ± ${digits(one.spread, 2)}`} <small class="muted">${count(one.num_runs)} ${one.num_runs === 1 ? "run" : "runs"}</small>`;
}

function difference(one) {
  if (one.difference === null) return html`<span class="muted">no prompt in common</span>`;
  const starts = `${count(one.num_starts)} ${one.num_starts === 1 ? "start" : "starts"}`;
  return html`${one.difference > 0 ? "+" : ""}${digits(one.difference)} <small class="muted">${starts}${one.p_adjusted === null ? "" : `, p ${digits(one.p_adjusted, 2)}`}</small>`;
}
