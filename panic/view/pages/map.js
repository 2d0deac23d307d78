// The map: every output in two dimensions, coloured by what its run is; hover shows it, a lasso selects runs.
import { html, useEffect, useMemo, useRef, useState } from "./preact.js";
import { experimentPath, get, imageAddress } from "./api.js";
import { address, go } from "./route.js";
import { Message, count, disagreement, moment, shortPrompt } from "./parts.js";
import { useAnswers } from "./shards.js";
import { Choice, Scale, text } from "./wall.js";
import { colourOf, shadeOf } from "./colours.js";

const FACTORS = ["network", "prompt", "seed", "repeat", "arm", "state", "cluster", "step"]; // which the map knows
const FIELDS = ["tags", "label", "group", "prompt_tags", "steps", "period", "entry_step"]; // which are asked for, as metrics are
const NUMBERS = ["steps", "period", "entry_step"];
const MOST_IN_FILTER = 400;

export function PlaceMap({ place, store, experiment }) {
  const { query } = place;
  const stores = store.split("+");
  const path = experimentPath(store, experiment);
  const { all: abouts } = useAnswers(stores.map((one) => experimentPath(one, experiment)), {}, { isLive: false });
  const metrics = abouts ? abouts[0].metrics : [];
  const factor = query.colour || "network";
  const field = FACTORS.includes(factor) ? "" : factor;
  const { all: values, error: unknown } = useAnswers(
    stores.map((one) => (field ? `${experimentPath(one, experiment)}/values/${encodeURIComponent(field)}` : "")), {}, { least: 10000 });
  const valueOf = useMemo(() => field && values && new Map(values.flatMap(({ runs, values }, place) =>
    runs.map((run, at) => [`${stores[place]}/${run}`, values[at]]))), [field, ...(values || [])]);
  const asked = { model: query.model || "", method: query.method || "pca" };
  const [state, setState] = useState({ found: null, error: null });
  const key = path + JSON.stringify(asked);
  useEffect(() => {
    const stop = new AbortController();
    setState({ found: null, error: null });
    get(`${path}/map`, asked, stop.signal).then(
      (found) => setState({ found: unpacked(found), error: null }),
      (error) => error.name !== "AbortError" && setState({ found: null, error })
    );
    return () => stop.abort();
  }, [key]);
  const change = (changed) => go([store, experiment, "map"], { ...query, ...changed });
  const { found, error } = state;
  return html`
    <div class="bar"><h1><a href=${address([store, experiment])}>${experiment}</a> · map</h1>
      <${Choice} name="colour" value=${factor} all=${[...FACTORS, ...FIELDS, ...metrics]} change=${change} />
      ${found && found.models.length > 1 ? html`<${Choice} name="model" value=${found.model} all=${found.models} change=${change} />` : null}
      <${Choice} name="method" value=${asked.method} all=${["pca", "umap"]} change=${change} />
      <label>run <input class="short" value=${query.run || ""} inputmode="numeric" placeholder="its path"
        onChange=${(e) => change({ run: e.target.value.trim() })} /></label>
    </div>
    <${Message} error=${error || (field && unknown) || (found && disagreement(found.conflicts))} />
    ${!found && !error ? html`<p class="muted" role="status">It is being worked out …</p>` : null}
    ${found ? html`<${Places} key=${key} ...${{ found, store, experiment, query, factor, valueOf, isNumber: NUMBERS.includes(factor) || metrics.includes(factor) }} />` : null}`;
}

function unpacked(found) {
  const bytes = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0)).buffer;
  return {
    ...found, run: new Int32Array(bytes(found.run)), step: new Int32Array(bytes(found.step)),
    x: new Uint16Array(bytes(found.x)), y: new Uint16Array(bytes(found.y)), cluster: new Int16Array(bytes(found.cluster)),
    runsById: new Map(found.runs.map((run) => [run.run, run])),
  };
}

function Places({ found, store, experiment, query, factor, valueOf, isNumber }) {
  const canvas = useRef(null);
  const over = useRef(null); // what changes while a lasso is drawn, above the points
  const [size, setSize] = useState([0, 0]);
  const [hover, setHover] = useState(null);
  const [lasso, setLasso] = useState(null);
  const [chosen, setChosen] = useState(null);
  const followed = found.runs.find((run) => [String(run.number), `${run.store}/${run.number}`].includes(query.run))?.run ?? null;
  const [high, wide] = useMemo(() => [found.y.reduce((a, b) => Math.max(a, b), 1), found.x.reduce((a, b) => Math.max(a, b), 1)], [found]);
  const scale = Math.min((size[0] - 24) / wide, (size[1] - 24) / high);
  const [left, below] = [(size[0] - wide * scale) / 2, (size[1] - high * scale) / 2];
  const at = (index) => [left + found.x[index] * scale, size[1] - below - found.y[index] * scale];
  const runOf = (index) => found.runsById.get(found.run[index]);
  const asked = (index) => valueOf && valueOf.get(`${runOf(index).store}/${runOf(index).number}`);
  const value = (index) =>
    valueOf !== "" ? text(asked(index)) :
    factor === "cluster" ? (found.cluster[index] < 0 ? "" : String(found.cluster[index])) :
    factor === "step" ? found.step[index] : String(runOf(index)?.[factor] ?? "");
  const last = useMemo(() => found.step.reduce((a, b) => Math.max(a, b), 1), [found]);
  const [least, most] = useMemo(() => (isNumber && valueOf ? rangeOf(valueOf.values()) : [0, 0]), [valueOf, isNumber]);
  const colour = (index) => factor === "step" ? shadeOf(found.step[index], 0, last) :
    isNumber ? shadeOf(asked(index), least, most) : colourOf(value(index));

  useEffect(() => {
    const measure = () => setSize([canvas.current.clientWidth, canvas.current.clientHeight]);
    const watch = new ResizeObserver(measure);
    watch.observe(canvas.current);
    return () => watch.disconnect();
  }, []);
  useEffect(() => {
    if (!size[0]) return;
    const pen = penOf(canvas.current, size);
    const side = found.total > 20000 ? 1.5 : found.total > 3000 ? 3 : 6;
    const groups = new Map();
    for (let index = 0; index < found.total; index += 1) {
      const name = chosen && !chosen.has(found.run[index]) ? "#8a939c33" : colour(index);
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(index);
    }
    pen.globalAlpha = found.total > 3000 ? 0.6 : 0.85;
    for (const [name, places] of groups) {
      pen.fillStyle = name;
      for (const index of places) {
        const [x, y] = at(index);
        pen.fillRect(x - side / 2, y - side / 2, side, side);
      }
    }
    pen.globalAlpha = 1;
    const lines = chosen && chosen.size <= 12 ? [...chosen] : followed !== null ? [followed] : [];
    for (const run of lines) drawPath(pen, run);
    canvas.current.dataset.drawn = String(found.total);
    canvas.current.dataset.colours = String(groups.size);
  }, [size, factor, chosen, followed, found, valueOf]);
  useEffect(() => {
    if (!size[0]) return;
    const pen = penOf(over.current, size);
    if (lasso) {
      pen.strokeStyle = "#0072b2";
      pen.setLineDash([4, 3]);
      pen.beginPath();
      lasso.forEach(([x, y], place) => (place ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      pen.stroke();
    }
  }, [size, lasso]);

  const drawPath = (pen, run) => {
    pen.strokeStyle = colourOf(`run ${run}`);
    pen.lineWidth = 1.5;
    pen.beginPath();
    let isFirst = true;
    for (let index = 0; index < found.total; index += 1) {
      if (found.run[index] !== run) continue;
      const [x, y] = at(index);
      if (isFirst) pen.moveTo(x, y);
      else pen.lineTo(x, y);
      isFirst = false;
    }
    pen.stroke();
  };
  const place = (event) => {
    const box = canvas.current.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const nearest = ([x, y]) => {
    let [best, least] = [null, 14 * 14];
    for (let index = 0; index < found.total; index += 1) {
      const [px, py] = at(index);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [best, least] = [index, distance];
    }
    return best;
  };
  const down = (event) => {
    canvas.current.setPointerCapture(event.pointerId);
    setLasso([place(event)]);
    setHover(null);
  };
  const moved = (event) => {
    const here = place(event);
    if (lasso) setLasso([...lasso, here]);
    else setHover(nearest(here));
  };
  const up = () => {
    if (lasso && lasso.length > 4) {
      const inside = new Set();
      for (let index = 0; index < found.total; index += 1) if (isInside(at(index), lasso)) inside.add(found.run[index]);
      setChosen(inside.size ? inside : null);
    } else if (lasso) {
      const index = nearest(lasso[0]);
      if (index === null) setChosen(null);
      else go([runOf(index).store, experiment, "run", String(runOf(index).number)], { step: found.step[index] });
    }
    setLasso(null);
  };
  const values = [...new Set(Array.from({ length: Math.min(found.total, 20000) }, (_, index) => value(index)))];
  const where = chosen && chosen.size <= MOST_IN_FILTER ? filterOf([...chosen].sort((a, b) => a - b).map((id) => found.runsById.get(id)), store) : "";
  return html`
    <p class="muted plain">${count(found.total)} ${found.modality}s under ${found.model}${found.share === null ? "" : `; the plane has ${Math.round(found.share * 100)} % of their variance`}, as of ${moment(found.at)}${store.includes("+") ? "" : `, revision ${found.revision}`}.
      ${chosen ? html` <b data-chosen=${chosen.size}>${count(chosen.size)} runs selected</b>
        ${where ? html` <a href=${address([store, experiment], { where })}>show them on the wall</a>` : " (too many for a filter)"}
        <button class="quiet" onClick=${() => setChosen(null)}>all</button>` : html` Draw around points to select their runs.`}</p>
    ${factor === "step" ? null : isNumber ? html`<${Scale} low=${least} high=${most} field=${factor} />` : html`<div class="legend">${values.slice(0, 14).map((one) => html`<span><i style=${{ background: colourOf(one) }}></i>${
      factor === "cluster" ? (one === "" ? "no cluster" : found.medoids[Number(one)]?.name || one) : shortPrompt(one).slice(0, 60) || "–"}</span>`)}</div>`}
    <div class="places"><canvas ref=${canvas} aria-label=${`map of ${found.total} outputs`} onPointerDown=${down} onPointerMove=${moved} onPointerUp=${up} onPointerLeave=${() => setHover(null)}></canvas>
      <canvas class="over-points" ref=${over} aria-hidden="true"></canvas>
      ${hover !== null ? html`<${Hover} ...${{ found, index: hover, at: at(hover), size, experiment }} />` : null}</div>
    ${found.medoids.length ? html`<section class="card"><h2>Clusters</h2><div class="medoids">${found.medoids.slice(0, 24).map((one) => html`<figure>
      ${found.modality === "image" && one.digest ? html`<img width="96" height="96" src=${imageAddress(found.runsById.get(one.run)?.store, one.digest, 96)} alt=${one.name} />` : null}
      <figcaption dir="auto">${one.name} <small class="muted">${count(one.size)}</small></figcaption></figure>`)}</div></section>` : null}`;
}

function penOf(canvas, [width, height]) {
  const ratio = window.devicePixelRatio || 1;
  Object.assign(canvas, { width: width * ratio, height: height * ratio });
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  return pen;
}

function isInside([x, y], lasso) {
  let is = false;
  for (let i = 0, j = lasso.length - 1; i < lasso.length; j = i, i += 1) {
    const [[ax, ay], [bx, by]] = [lasso[i], lasso[j]];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) is = !is;
  }
  return is;
}

function filterOf(runs, store) {
  return store.includes("+") ? `uid in (${runs.map((run) => `'${run.uid}'`).join(", ")})` : `run in (${runs.map((run) => run.number).join(", ")})`;
}

function rangeOf(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) if (typeof value === "number") [low, high] = [Math.min(low, value), Math.max(high, value)];
  return [low, high];
}

function Hover({ found, index, at, size, experiment }) {
  const [cells, setCells] = useState([]);
  const step = found.step[index];
  const { store, number: run, prompt } = found.runsById.get(found.run[index]);
  const path = experimentPath(store, experiment);
  useEffect(() => {
    const stop = new AbortController();
    const timer = setTimeout(() => get(`${path}/cells`, { runs: run, step, before: 1 }, stop.signal).then(
      (answer) => setCells(answer.cells), () => {}), 60);
    return () => (clearTimeout(timer), stop.abort());
  }, [store, run, step]);
  const left = Math.min(at[0] + 14, size[0] - 250);
  return html`<div class="hover card" style=${{ left: `${Math.max(0, left)}px`, top: `${Math.min(at[1] + 14, size[1] - 150)}px` }}>
    <b>run ${run}, step ${step}</b> <span class="muted">${shortPrompt(prompt).slice(0, 80)}</span>
    ${cells.map((cell) => cell.modality === "image"
      ? html`<img width="96" height="96" src=${imageAddress(store, cell.digest, 96)} alt="" />`
      : html`<span dir="auto">${cell.text.slice(0, 200)}</span>`)}</div>`;
}
