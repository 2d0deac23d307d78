// Where an experiment stands: runs and stages, seconds by model, who works on what, failures, the log.
import { html } from "./preact.js";
import { experimentPath } from "./api.js";
import { address } from "./route.js";
import { Badge, Message, count, duration, moment, useAnswer } from "./parts.js";

export function Status({ store, experiment }) {
  const path = experimentPath(store, experiment);
  const { found: about, error } = useAnswer(path);
  const { found: status, error: slow } = useAnswer(`${path}/status`, {}, { least: 1500 });
  const { found: failed } = useAnswer(`${path}/runs`, { where: "state = failed", limit: 50 }, { least: 5000 });
  const { found: work } = useAnswer(`${path}/work`, {}, { least: 1500 });
  if (!about) return html`<${Message} error=${error} />`;
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
    ${work && work.devices.length ? html`<section class="card"><h2>Devices</h2><div class="scroll"><table>
      <thead><tr><th>device</th><th>last model</th><th class="number">batch</th><th class="number">took</th><th>at</th><th>now</th></tr></thead>
      <tbody>${work.devices.map((one) => html`<tr><td>${one.device}</td><td>${one.model}</td><td class="number">${one.size} of ${one.padded_size}</td>
        <td class="number">${duration(one.duration_s)}</td><td class="muted nowrap">${moment(one.started_at)}</td><td class="muted">${now(one.now)}</td></tr>`)}</tbody></table></div></section>` : null}
    ${failed && failed.total ? html`<section class="card"><h2>Failures <small class="muted">${count(failed.total)}</small></h2>
      <ul>${failed.runs.map((run) => html`<li key=${run.run}><a href=${address([store, experiment, "run", String(run.run)], { step: run.failure.step })}>run ${run.run}</a>
        at step ${run.failure.step} (${run.failure.kind}): <span dir="auto">${run.failure.message}</span></li>`)}</ul></section>` : null}
    <section class="card"><h2>Sessions</h2><div class="scroll"><table><tbody>${[...about.sessions].reverse().map((one) => html`<tr>
      <td class="nowrap muted">${moment(one.started_at)}</td><td>${one.end_state || "working, or killed"}</td><td>${one.pid} on ${one.host}</td><td><code>${one.command}</code></td></tr>`)}</tbody></table></div></section>
    ${work && work.log ? html`<section class="card"><h2>Log <small class="muted">${work.log_name}</small></h2><pre class="log">${work.log}</pre></section>` : null}
    <section class="card"><h2>Config</h2><pre class="log">${JSON.stringify(about.config, null, 1)}</pre></section>
  `;
}

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
