// Small parts that several pages share.
import { html, useEffect, useRef, useState } from "./preact.js";
import { get, onChange } from "./api.js";

export function Badge({ state }) {
  return html`<span class=${`badge ${String(state).replace(" ", "-")}`}>${state}</span>`;
}

export function Message({ error }) {
  if (!error) return null;
  return html`<div class="message" role="alert">
    <pre>${error.message}</pre>
    ${error.hint ? html`<pre class="muted">${error.hint}</pre>` : null}
  </div>`;
}

// Of shards that do not agree: what was left out.
export function disagreement(conflicts) {
  return conflicts.length ? { message: "Left out, because the stores do not agree:", hint: conflicts.join("\n") } : null;
}

export function Help({ close }) {
  const keys = [
    ["← →", "one step back or forward (with shift: ten)"],
    ["home, end", "first step, last step"],
    ["space", "play, pause"],
    ["↑ ↓", "runs above, runs below"],
    ["/", "filter"],
    ["?", "these keys"],
  ];
  const box = useRef(null);
  useEffect(() => box.current.focus(), []);
  return html`<div class="over" onClick=${close}>
    <div class="card" role="dialog" aria-label="Keys" tabindex="-1" ref=${box} onClick=${(e) => e.stopPropagation()}>
      <h2>Keys</h2>
      <dl class="keys">${keys.map(([key, what]) => html`<dt><kbd>${key}</kbd></dt><dd>${what}</dd>`)}</dl>
      <p class="muted">On a phone: swipe over the wall to move the slider.</p>
      <button onClick=${close}>Close</button>
    </div>
  </div>`;
}

// What the server answers to a question, again whenever the store has changed (at most every `least` ms).
export function useAnswer(path, query = {}, { least = 1000, isLive = true } = {}) {
  const [answer, setAnswer] = useState({ found: null, error: null, of: path });
  const key = path + JSON.stringify(query);
  useEffect(() => {
    let isHere = true;
    let asked = 0;
    let waiting = null;
    let [isAsking, isStale] = [false, false];
    const stop = new AbortController();
    const ask = async () => {
      waiting = null;
      isStale = false;
      isAsking = true;
      asked = Date.now();
      try {
        const found = await get(path, query, stop.signal);
        if (isHere) setAnswer({ found, error: null, of: path });
      } catch (error) {
        if (isHere && error.name !== "AbortError") setAnswer((old) => ({ found: old.of === path ? old.found : null, error, of: path }));
      }
      isAsking = false;
      if (isStale && isHere) later();
    };
    const later = () => {
      isStale = isAsking; // one question at a time; again when its answer has come
      if (!waiting && !isAsking) waiting = setTimeout(ask, Math.max(0, asked + least - Date.now()));
    };
    setAnswer((old) => ({ found: old.of === path ? old.found : null, error: null, of: path }));
    if (path) ask();
    const leave = path && isLive ? onChange(later) : () => {};
    return () => {
      isHere = false;
      leave();
      clearTimeout(waiting);
      stop.abort();
    };
  }, [key]);
  return answer.of === path ? answer : { found: null, error: null };
}

export const count = (number) => (number === null || number === undefined ? "–" : number.toLocaleString("en"));

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * size) return `${(seconds / size).toFixed(1)} ${unit}`;
  }
  return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
}

export function moment(at) {
  return at ? new Date(at * 1000).toISOString().slice(0, 16).replace("T", " ") + " UTC" : "";
}

export const network = (names) => names.join(" → ");

export const isImage = (prompt) => /^image:[0-9a-f]{64}$/.test(prompt);

export function shortPrompt(prompt) {
  return isImage(prompt) ? `image ${prompt.slice(6, 18)}` : prompt;
}
