// Where an experiment stands: runs and stages, seconds by model, who works on what, failures, the log.
import { html } from "./preact.js";
import { experimentPath } from "./api.js";
import { address } from "./route.js";
import { Badge, Message, count, duration, moment } from "./parts.js";
import { standing, useAnswers, useExperiment, useStoreNames } from "./shards.js";

export function Status({ store, experiment }) {
  const stores = store.split("+");
  const nameOf = useStoreNames(stores.length > 1);
  const whose = (place) => (stores.length > 1 ? `${nameOf(stores[place])}, ` : "");
  const of = (page) => stores.map((one) => experimentPath(one, experiment) + page);
  const { about, error } = useExperiment(stores, experiment);
  const { all: standings, error: slow } = useAnswers(of("/status"), {}, { least: 1500 });
  const { all: failed } = useAnswers(of("/runs"), { where: "state = failed", limit: 50 }, { least: 5000 });
  const { all: work } = useAnswers(of("/work"), {}, { least: 1500 });
  if (!about) return html`<${Message} error=${error} />`;
  const status = standings && standing(standings);
  const failures = failed ? onceByUid(failed.flatMap(({ runs }, place) => runs.map((run) => ({ run, place })))) : [];
  const devices = work ? work.flatMap((one, place) => one.devices.map((device) => ({ ...device, place }))) : [];
  const { counts } = about;
  const ended = counts.done + counts.stuck + counts.repeated + counts.failed;
  return html`
    <div class="bar"><h1>${about.name} <${Badge} state=${about.state} /></h1>
      <span class="muted">created ${moment(about.created_at)}</span></div>
    <${Message} error=${error || slow} />
    <section class="card">
      <h2>Runs</h2>
      <div class="states" role="img" aria-label=${`${ended} of ${counts.runs} runs have ended`}>
        ${["done", "stuck", "repeated", "failed", "begun", "todo"].map((name) => counts[name]
          ? html`<span class=${`state ${name}`} style=${{ flexGrow: counts[name] }} title=${`${counts[name]} ${name}`}></span>` : null)}
      </div>
      <p><b data-ended>${count(ended)}</b> of ${count(counts.runs)} have ended:${" "}
        ${["done", "stuck", "repeated", "failed"].filter((name) => counts[name]).map((name) => html`${count(counts[name])} ${name}, `)}
        ${count(counts.begun)} under way, ${count(counts.todo)} not begun. <b data-steps>${count(counts.invocations)}</b> steps.
        ${status && status.eta_s !== null ? html` At most <b>${duration(status.eta_s)}</b> left.` : null}</p>
      ${status ? html`<p class="muted">${["embeddings", "diagrams", "vectorisations", "distances"].map((name) => `${count(status[name])} ${name}`).join(", ")}${" "}
        · as of ${moment(status.at)}, revision ${status.revision}</p>` : null}
    </section>
    ${status && status.models.length ? html`<section class="card"><h2>Time by model</h2><div class="scroll"><table>
      <thead><tr><th>model</th><th class="number">calls</th><th class="number">items</th><th class="number">time</th><th>useful and padded</th><th class="number">items/s</th></tr></thead>
      <tbody>${status.models.map((one) => html`<tr key=${one.model}><td>${one.model}</td><td class="number">${count(one.batches)}</td><td class="number">${count(one.items)}</td>
        <td class="number">${duration(one.duration_s)}</td>
        <td><${Share} useful=${one.duration_s - one.padding_s} padded=${one.padding_s} /></td>
        <td class="number">${one.duration_s ? rate(one.items / one.duration_s) : "–"}</td></tr>`)}</tbody></table></div></section>` : null}
    ${devices.length ? html`<section class="card"><h2>Devices</h2><div class="scroll"><table>
      <thead><tr><th>device</th><th>last model</th><th class="number">batch</th><th class="number">took</th><th>at</th><th>now</th></tr></thead>
      <tbody>${devices.map((one) => html`<tr><td>${whose(one.place)}${one.device}</td><td>${one.model}</td><td class="number">${one.size} of ${one.padded_size}</td>
        <td class="number">${duration(one.duration_s)}</td><td class="muted nowrap">${moment(one.started_at)}</td><td class="muted">${now(one.now)}</td></tr>`)}</tbody></table></div></section>` : null}
    ${failures.length ? html`<section class="card"><h2>Failures <small class="muted">${count(counts.failed)}</small></h2>
      <ul>${failures.map(({ run, place }) => html`<li key=${`${place}:${run.run}`}>${whose(place)}<a href=${address([stores[place], experiment, "run", String(run.run)], { step: run.failure.step })}>run ${run.run}</a>
        at model call ${run.failure.step} (${run.failure.kind}): <span dir="auto">${run.failure.message}</span></li>`)}</ul></section>` : null}
    <section class="card"><h2>Sessions</h2><div class="scroll"><table><tbody>${[...about.sessions].reverse().map((one) => html`<tr>
      <td class="nowrap muted">${moment(one.started_at)}</td><td>${one.end_state || "working, or killed"}</td><td>${one.pid} on ${one.host}</td><td><code>${one.command}</code></td></tr>`)}</tbody></table></div></section>
    ${(work || []).map((one, place) => one.log ? html`<section class="card" key=${place}><h2>Log <small class="muted">${whose(place)}${one.log_name}</small></h2><pre class="log">${one.log}</pre></section>` : null)}
    <section class="card"><h2>Config</h2><pre class="log">${JSON.stringify(about.config, null, 1)}</pre></section>
  `;
}

// A run that several stores have failed in each of them.
const onceByUid = (failures) => [...new Map([...failures].reverse().map((one) => [one.run.uid, one])).values()].reverse();

const rate = (value) => (value >= 100 ? count(Math.round(value)) : value.toPrecision(3));

function now(found) {
  if (!found) return "";
  const parts = [];
  if (found.memory_used_bytes !== null) parts.push(`${(found.memory_used_bytes / 2 ** 30).toFixed(1)} of ${(found.memory_total_bytes / 2 ** 30).toFixed(1)} GiB`);
  if (found.temperature_c !== null) parts.push(`${found.temperature_c} °C`);
  if (found.power_w !== null) parts.push(`${Math.round(found.power_w)} W`);
  return parts.join(", ");
}

function Share({ useful, padded }) {
  const whole = useful + padded || 1;
  return html`<div class="states thin" role="img" aria-label=${`${Math.round((100 * padded) / whole)} % padding`}>
    <span class="state done" style=${{ flexGrow: useful / whole }}></span><span class="state todo" style=${{ flexGrow: padded / whole }}></span></div>
    <small class="muted">${Math.round((100 * padded) / whole)} % padding</small>`;
}
