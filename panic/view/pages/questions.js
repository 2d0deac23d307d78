// The questions of the analysis: each is asked when its page is opened, in a process of the server's.
import { html, useEffect, useState } from "./preact.js";
import { experimentPath, get } from "./api.js";
import { address } from "./route.js";
import { Message, count, disagreement, moment } from "./parts.js";
import { Chart } from "./charts.js";

export function Questions({ place, store, experiment }) {
  const asked = place.parts[3] || "";
  const path = `${experimentPath(store, experiment)}/questions`;
  const [list, setList] = useState({ found: null, error: null });
  useEffect(() => {
    let isHere = true;
    get(path).then((found) => isHere && setList({ found, error: null }), (error) => isHere && setList({ found: null, error }));
    return () => (isHere = false);
  }, [path]);
  return html`
    <h1><a href=${address([store, experiment])}>${experiment}</a> · questions</h1>
    <${Message} error=${list.error} />
    <div class="asking">
      <nav class="card list" aria-label="questions">
        ${list.found ? list.found.questions.map((one) => html`<a key=${one.question} class=${one.question === asked ? "here" : ""}
          aria-current=${one.question === asked ? "page" : null} title=${one.about}
          href=${address([store, experiment, "questions", one.question])}>${one.title}</a>`) : html`<p class="muted">…</p>`}
      </nav>
      ${asked ? html`<${Asked} key=${asked} path=${`${path}/${encodeURIComponent(asked)}`} isShared=${store.includes("+")} />` : html`<p class="muted">Choose a question.</p>`}
    </div>`;
}

function Asked({ path, isShared }) {
  const [state, setState] = useState({ found: null, error: null, seconds: 0 });
  const [round, setRound] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    const begin = Date.now();
    const timer = setInterval(() => setState((old) => ({ ...old, seconds: Math.round((Date.now() - begin) / 1000) })), 1000);
    get(path, {}, stop.signal).then(
      (found) => setState({ found, error: null, seconds: 0 }),
      (error) => error.name !== "AbortError" && setState({ found: null, error, seconds: 0 })
    ).finally(() => clearInterval(timer));
    return () => (stop.abort(), clearInterval(timer));
  }, [path, round]);
  const { found, error, seconds } = state;
  if (error) return html`<div><${Message} error=${error} /><button onClick=${() => setRound(round + 1)}>Again</button></div>`;
  if (!found) return html`<p class="muted" role="status">It is being worked out${seconds ? ` (${seconds} s)` : ""} …</p>`;
  return html`<div data-answered>
    <${Message} error=${disagreement(found.conflicts)} />
    <p class="muted">As of ${moment(found.at)}${isShared ? "" : `, revision ${found.revision}`}. <button class="quiet" onClick=${() => setRound(round + 1)}>Again</button></p>
    ${found.figures.length ? null : html`<p>Nobody would ask this of these data.</p>`}
    ${found.figures.map((figure) => html`<section class="card" key=${figure.title}>
      <h2>${figure.title}</h2>
      ${figure.missing ? html`<p class="muted">${figure.missing}</p>` : null}
      ${figure.sentence ? html`<p dir="auto">${figure.sentence}</p>` : null}
      ${figure.charts.map((chart) => html`<${Chart} key=${chart.heading} chart=${chart} title=${figure.title} />`)}
      ${figure.caveat ? html`<p class="muted">${figure.caveat}</p>` : null}
      ${figure.table.total ? html`<details><summary>table (${count(figure.table.total)} rows)</summary><div class="scroll table"><table>
        <thead><tr>${figure.table.columns.map((name) => html`<th>${name}</th>`)}</tr></thead>
        <tbody>${figure.table.rows.map((row) => html`<tr>${row.map((text) => html`<td>${text}</td>`)}</tr>`)}</tbody></table></div></details>` : null}
    </section>`)}
  </div>`;
}
