// What was said of an experiment or a run, and a place to say more; stopping an experiment.
import { html, useEffect, useState } from "./preact.js";
import { about, experimentPath, post } from "./api.js";
import { Message, moment } from "./parts.js";

export function Remarks({ store, experiment, run = null, of, where = "" }) {
  const [write, setWrite] = useState(null);
  const [error, setError] = useState(null);
  const [done, setDone] = useState("");
  useEffect(() => void about().then((found) => setWrite(found.write), () => {}), []);
  const say = async (event) => {
    event.preventDefault();
    const form = event.target;
    try {
      await post(`stores/${store}/remarks`, { experiment, run, kind: form.elements.kind.value, text: form.elements.text.value });
      form.elements.text.value = "";
      setError(null);
      setDone("Said.");
    } catch (problem) {
      setError(problem);
      setDone("");
    }
  };
  const stop = async () => {
    if (!confirm(`Ask the process that performs ${of.name} to stop? It can go on later.`)) return;
    try {
      const { asked } = await post(`${experimentPath(store, experiment)}/stop`);
      setDone(asked ? `Process ${asked} was asked to stop.` : "Nobody performs it.");
    } catch (problem) {
      setError(problem);
    }
  };
  const remarks = of.remarks || [];
  return html`<details class="card remarks" open=${remarks.length > 0 && run !== null}>
    <summary>Remarks ${where ? `in ${where} ` : ""}${remarks.length ? `(${remarks.length})` : ""}
      ${of.label ? html` <span class="muted">“${of.label}”</span>` : null}
      ${(of.tags || []).map((tag) => html` <span class="tag">${tag}</span>`)}</summary>
    <ul>${remarks.slice(-50).map((one) => html`<li><span class="muted">${moment(one.at)} ${one.author} ${one.kind}</span> <span dir="auto">${one.text}</span></li>`)}</ul>
    ${write
      ? html`<form class="bar" onSubmit=${say}>
          <select name="kind" aria-label="kind of remark">${["tag", "untag", "label", "comment"].map((kind) => html`<option value=${kind}>${kind}</option>`)}</select>
          <input name="text" aria-label="remark" required autocomplete="off" />
          <button>Say</button>
          ${run === null && of.state === "running" ? html`<button type="button" onClick=${stop}>Stop the experiment</button>` : null}
          <span role="status">${done}</span>
        </form>`
      : html`<p class="muted">Nothing can be said here: the server is read only.</p>`}
    <${Message} error=${error} />
  </details>`;
}
