// All experiments of all stores, with filters and an order as the command line has them.
import { html, useCallback, useEffect, useState } from "./preact.js";
import { bundle } from "./api.js";
import { address, go } from "./route.js";
import { Badge, Message, count, moment, useAnswer } from "./parts.js";

export function Stores({ place }) {
  const { found, error } = useAnswer("stores");
  const { where = "", sort = "" } = place.query;
  const change = (changed) => go([], { where, sort, ...changed });
  const [names, setNames] = useState({}); // of experiments, by store
  const tell = useCallback((store, own) => setNames((old) => ({ ...old, [store]: own })), []);
  const shared = shards(names);
  return html`
    <div class="bar">
      <${Search} value=${where} onSearch=${(text) => change({ where: text })} example="state = running" />
      <label>sort <input class="short" value=${sort} placeholder="-created"
        onChange=${(e) => change({ sort: e.target.value })} /></label>
      ${bundle ? null : html`<a href=${address(["side"])}>side by side</a> <a href=${address(["trainings"])}>trainings</a>`}
    </div>
    <${Message} error=${error} />
    ${found && found.stores.map((one) => html`<${Store} key=${one.store} ...${{ one, tell, query: { where, sort } }} />`)}
    ${shared.length ? html`<section class="card"><h2>In several stores <small class="muted">as one experiment</small></h2>
      <ul>${shared.map(([name, stores]) => html`<li key=${name}><a href=${address([stores.join("+"), name])}>${name}</a> <span class="muted">in stores ${stores.join(", ")}</span></li>`)}</ul></section>` : null}
  `;
}

// Experiments of one name in several stores: shards of it, or copies.
function shards(names) {
  const found = new Map();
  for (const [store, own] of Object.entries(names)) for (const name of own) found.set(name, [...(found.get(name) || []), store]);
  return [...found].filter(([name, stores]) => stores.length > 1 && !name.includes("/"));
}

export function Search({ value, onSearch, example }) {
  return html`<form class="search" onSubmit=${(e) => (e.preventDefault(), onSearch(e.target.elements.text.value))}>
    <label>filter <input data-search name="text" type="search" key=${value} defaultValue=${value} placeholder=${bundle ? "words" : example}
      autocomplete="off" autocapitalize="off" spellcheck=${false} onChange=${(e) => onSearch(e.target.value)} /></label>
  </form>`;
}

function Store({ one, query, tell }) {
  const [limit, setLimit] = useState(50);
  const asked = one.problem ? "" : `stores/${one.store}/experiments`;
  const { found, error } = useAnswer(asked, { ...query, limit });
  const names = found ? found.experiments.map((row) => row.name) : [];
  useEffect(() => tell(one.store, names), [JSON.stringify(names)]);
  return html`<section class="card">
    <h2>${one.name} ${found ? html`<small class="muted">${count(found.total)} ${found.total === 1 ? "experiment" : "experiments"}</small>` : null}</h2>
    ${one.problem ? html`<p class="message">${one.problem}</p>` : null}
    <${Message} error=${error} />
    ${found && !found.total && !error ? html`<p class="muted">Nothing here is as the filter says.</p>` : null}
    ${found && found.total
      ? html`<div class="scroll"><table>
          <thead><tr><th>experiment</th><th>state</th><th class="number">runs</th><th>progress</th>
            <th class="number">stuck</th><th class="number">failed</th><th class="number">steps</th><th>created</th></tr></thead>
          <tbody>${found.experiments.map((row) => html`<${Row} key=${row.id} row=${row} store=${one.store} />`)}</tbody>
        </table></div>`
      : null}
    ${found && found.next ? html`<button onClick=${() => setLimit(limit + 50)}>More</button>` : null}
  </section>`;
}

function Row({ row, store }) {
  const name = row.name.includes("/") ? row.id : row.name;
  const ended = row.done + row.stuck + row.repeated + row.failed;
  return html`<tr data-experiment=${row.name}>
    <td><a href=${address([store, name])}>${row.name}</a>
      ${row.label ? html` <span class="muted">“${row.label}”</span>` : null}
      ${row.tags.map((tag) => html` <span class="tag">${tag}</span>`)}</td>
    <td><${Badge} state=${row.state} /></td>
    <td class="number">${count(row.runs)}</td>
    <td><progress max=${row.runs || 1} value=${ended} aria-label=${`${ended} of ${row.runs} runs`}></progress></td>
    <td class="number">${count(row.stuck)}</td>
    <td class=${`number ${row.failed ? "alarm" : ""}`}>${count(row.failed)}</td>
    <td class="number">${count(row.invocations)}</td>
    <td class="muted nowrap">${moment(row.created_at)}</td>
  </tr>`;
}
