// The wall: every run of an experiment is a row, and one slider moves all of them to the same step.
import { html, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./preact.js";
import { onChange } from "./api.js";
import { address, go, replace } from "./route.js";
import { Thumbnail } from "./images.js";
import { Badge, Message, count, shortPrompt } from "./parts.js";
import { Remarks } from "./remarks.js";
import { Search } from "./stores.js";
import { Slider } from "./slider.js";
import { useExperiment, useStoreNames } from "./shards.js";
import { Rows, tilesOf } from "./rows.js";
import { colourOf, shadeOf } from "./colours.js";

const OVERSCAN = 4;
const FIELDS = ["", "network", "prompt", "seed", "repeat", "arm", "state", "tags", "period", "steps", "entry_step"];
const SHOWN = ["network", "prompt", "seed", "repeat", "state", "tags"]; // on every row, whatever it is grouped by
const SIZES = { small: 64, medium: 96, large: 144, huge: 256 };

export function Wall({ place, store, experiment }) {
  const { query } = place;
  const stores = store.split("+");
  const nameOf = useStoreNames(stores.length > 1);
  const { all, about, error } = useExperiment(stores, experiment);
  const settings = {
    size: SIZES[query.size] || SIZES[window.innerWidth < 600 ? "small" : "medium"],
    texts: query.texts || "below",
    group: query.group || "",
    colour: query.colour || "",
    step: /^\d+$/.test(query.step || "") ? Number(query.step) : "last",
  };
  const change = useCallback((changed) => go([store, experiment], { ...query, ...changed }), [JSON.stringify(query)]);
  const move = useCallback(
    (step) => replace([store, experiment], { ...query, step: step === "last" ? "" : step }),
    [JSON.stringify(query)]
  );
  const found = useRows(stores, experiment, query, settings); // asked for beside the experiment, not after it
  if (!about) return html`<${Message} error=${error} />`;
  const fields = [...FIELDS, ...about.metrics];
  return html`
    <div class="bar">
      <h1>${about.name} <${Badge} state=${about.state} /></h1>
      <span class="muted" data-counts>${told(about.counts)}</span>
    </div>
    <${Search} value=${query.where || ""} onSearch=${(where) => change({ where })} example="state = stuck and period > 2" />
    <details class="controls" open=${window.innerWidth >= 600}><summary>order and looks</summary><div class="bar">
      <label>sort <input class="short" value=${query.sort || ""} placeholder="run"
        onChange=${(e) => change({ sort: e.target.value.trim() })} /></label>
      <${Choice} name="group" value=${settings.group} all=${fields} change=${change} />
      <${Choice} name="colour" value=${settings.colour} all=${fields} change=${change} />
      <${Choice} name="size" value=${query.size || ""} all=${["", ...Object.keys(SIZES)]} change=${change} />
      <${Choice} name="texts" value=${settings.texts} all=${["below", "only", "none"]} change=${change} />
    </div></details>
    <${Message} error=${error} />
    <${Slider} step=${settings.step} max=${Math.max(0, about.max_length - 1)} move=${move} />
    <div class="runs"><${List} found=${found} stores=${stores} experiment=${experiment} settings=${settings} query=${query} move=${move} max=${about.max_length - 1}
      isNumber=${about.metrics.includes(settings.colour)} /></div>
    ${stores.map((one, place) => html`<${Remarks} key=${one} store=${one} experiment=${experiment} of=${all[place]}
      where=${stores.length > 1 ? nameOf(one) : ""} />`)}
  `;
}

function told(counts) {
  const parts = ["todo", "begun", "done", "stuck", "repeated", "failed"].filter((name) => counts[name]);
  return `${count(counts.runs)} runs (${parts.map((name) => `${count(counts[name])} ${name}`).join(", ")}), ` +
    `${count(counts.invocations)} steps`;
}

export function Choice({ name, value, all, change }) {
  const known = all.includes(value) ? all : [...all, value];
  return html`<label>${name} <select value=${value} onChange=${(e) => change({ [name]: e.target.value })}>
    ${known.map((one) => html`<option value=${one} selected=${one === value}>${one || "–"}</option>`)}
  </select></label>`;
}

// How rows stand in a box of this width and height: tiles in a row, steps before the slider's that they take.
function layout({ size, texts }, [width, height]) {
  const isNarrow = width < 600;
  const span = Math.max(1, Math.floor((width - (isNarrow ? 0 : 210) - 24) / (size + 8)));
  const tall = size + (texts === "below" ? 58 : 8) + (isNarrow ? 56 : 16);
  return { span, before: span * 2 - 1, height: tall, shown: Math.ceil(height / tall) };
}

function useRows(stores, experiment, query, settings) {
  const columns = [...new Set([query.group, query.colour].filter(Boolean))].join(",");
  const sort = [query.group, query.sort].filter(Boolean).join(",");
  const key = [stores.join("+"), experiment, query.where, sort, columns].join("\n");
  const [state, setState] = useState({ rows: null, error: null });
  useEffect(() => {
    let isHere = true;
    const rows = new Rows(stores, experiment, { where: query.where, sort, columns });
    const { shown, before } = layout(settings, [window.innerWidth, window.innerHeight]);
    rows.begin(shown + OVERSCAN + 1, settings.step, before, settings.size).then(
      () => isHere && setState({ rows, error: null }),
      (error) => isHere && setState({ rows: null, error })
    );
    return () => (isHere = false);
  }, [key]);
  return state;
}

function List({ found, stores, experiment, settings, query, move, max, isNumber }) {
  const [, setTick] = useState(0);
  const redraw = useCallback(() => setTick((tick) => tick + 1), []);
  const { rows, error } = found;
  const [failure, setFailure] = useState(null);
  const [scrolled, setScrolled] = useState(0);
  const [box, setBox] = useState([window.innerWidth, window.innerHeight]);
  const outer = useRef(null);
  const { size, step } = settings;
  const { span, before, height, shown } = layout(settings, box);
  const first = Math.max(0, Math.floor(scrolled / height) - OVERSCAN);
  const last = rows ? Math.min(rows.total - 1, Math.floor(scrolled / height) + shown + OVERSCAN) : -1;

  useEffect(() => {
    const measure = () => outer.current && setBox([outer.current.clientWidth, outer.current.clientHeight]);
    measure();
    const watch = new ResizeObserver(measure);
    if (outer.current) watch.observe(outer.current);
    return () => watch.disconnect();
  }, [Boolean(rows)]);

  // One request at a time; what is wanted meanwhile is asked for when it has come.
  const wish = useRef(null);
  const isBusy = useRef(false);
  const load = useCallback(async (wanted) => {
    wish.current = wanted;
    if (isBusy.current) return;
    isBusy.current = true;
    try {
      while (wish.current) {
        const { rows, first, last, step, before, size, again } = wish.current;
        wish.current = null;
        if (await rows.need(first, last, { again })) redraw();
        const runs = [];
        for (let index = first; index <= last; index += 1) if (rows.at(index)) runs.push(rows.at(index));
        if (await rows.fill(runs, step, before, size)) redraw();
        setFailure(null);
      }
    } catch (problem) {
      setFailure(problem);
    } finally {
      isBusy.current = false;
    }
  }, []);
  const wanted = { rows, first, last, step, before, size };
  useLayoutEffect(() => void (rows && load(wanted)), [rows, first, last, step, before]); // a later one waits a frame
  const now = useRef(wanted);
  now.current = wanted;
  useLayoutEffect(() => {
    let waiting = null;
    const look = () => {
      waiting = waiting || setTimeout(() => {
        waiting = null;
        if (now.current.rows) load({ ...now.current, again: true });
      }, 500);
    };
    const leave = onChange(look);
    return () => (leave(), clearTimeout(waiting));
  }, []);
  useLayoutEffect(() => { // before it is seen: a key pressed at once is not lost
    const press = (event) => {
      const by = { ArrowDown: 1, ArrowUp: -1, PageDown: shown - 1, PageUp: 1 - shown }[event.key];
      if (!by || !outer.current || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
      event.preventDefault();
      outer.current.scrollTop += by * height;
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, [height, shown]);
  const swipe = useSwipe(step, max, move);

  if (error) return html`<${Message} error=${error} />`;
  if (!rows) return html`<p class="muted">…</p>`;
  if (!rows.total) return html`<p class="muted">No run is here.</p>`;
  const [low, high] = isNumber ? rows.range(query.colour) : [0, 0];
  const shade = (value) => (isNumber ? shadeOf(value, low, high) : colourOf(text(value)));
  const drawn = [];
  for (let index = first; index <= last; index += 1) {
    const run = rows.at(index);
    const earlier = index > 0 ? rows.at(index - 1) : null;
    const isNew = run && query.group && !isPart(run.fields[query.group]) && (!earlier || text(run.fields[query.group]) !== text(earlier.fields?.[query.group]));
    drawn.push(html`<div class=${`row ${isNew ? "first" : ""}`} key=${index} role="listitem"
      style=${{ top: `${index * height}px`, height: `${height}px` }} data-row=${index}>
      ${run ? html`<${Row} ...${{ run, rows, settings, span, before, experiment, shade, isSeen: index * height < scrolled + box[1] && (index + 1) * height > scrolled }} />` : null}
    </div>`);
  }
  return html`
    <${Message} error=${failure} />
    ${isNumber ? html`<${Scale} ...${{ low, high, field: query.colour }} />`
      : html`<${Legend} rows=${rows} first=${first} last=${last} field=${query.colour} />`}
    <div class="wall" ref=${outer} role="list" aria-label=${`${rows.total} runs`} tabindex="0" data-total=${rows.total}
      onScroll=${(e) => setScrolled(e.target.scrollTop)} ...${swipe}>
      <div class="inner" style=${{ height: `${rows.total * height}px` }}>${drawn}</div>
    </div>`;
}

const isPart = (value) => typeof value === "number" && !Number.isInteger(value);

export function text(value) {
  if (Array.isArray(value)) return value.join(", ");
  return value === null || value === undefined ? "" : String(isPart(value) ? Number(value.toPrecision(4)) : value);
}

function Legend({ rows, first, last, field }) {
  if (!field) return null;
  const values = new Set();
  for (let index = first; index <= last; index += 1) {
    const run = rows.at(index);
    if (run && run.fields) values.add(text(run.fields[field]));
  }
  return html`<div class="legend">${[...values].slice(0, 12).map(
    (value) => html`<span><i style=${{ background: colourOf(value) }}></i>${value.slice(0, 60) || "–"}</span>`
  )}</div>`;
}

// Of a metric: the least and greatest value of the runs that were loaded so far.
export function Scale({ low, high, field }) {
  if (low > high) return html`<div class="legend">No run here has a value of ${field}.</div>`;
  const told = (value) => (Math.abs(value) < (high - low) / 1e6 ? 0 : Number(value.toPrecision(3))); // 0 of what was rounded
  return html`<div class="legend">${[low, (low + high) / 2, high].map((value) =>
    html`<span><i style=${{ background: shadeOf(value, low, high) }}></i>${told(value)}</span>`)}</div>`;
}

function Row({ run, rows, settings, span, before, experiment, shade, isSeen }) {
  const { size, texts, step, colour, group } = settings;
  const tiles = tilesOf(rows.series(run, step, before), texts).slice(-span);
  const end = step === "last" ? run.num_steps - 1 : step;
  const known = rows.ends(run);
  const isPast = step !== "last" && step >= known;
  const here = [run.store, experiment, "run", String(run.run)];
  const bar = colour && run.fields ? { borderLeftColor: shade(run.fields[colour]) } : {};
  return html`
    <a class="label" style=${bar} href=${address(here, { step: Math.min(end, known - 1) })} data-run=${run.run}>
      <span><b>${run.run}</b> <${Badge} state=${run.state} /> <small class="muted">${rows.stores.length > 1 ? `store ${run.store}, ` : ""}seed ${run.seed}${run.repeat ? `, repeat ${run.repeat}` : ""}</small></span>
      <span class="prompt" title=${run.prompt}>${shortPrompt(run.prompt)}</span>
      <small title=${run.network.join(" → ")}>${run.arm === "baseline" ? "" : `${run.arm} · `}${run.network.join(" → ")}</small>
      ${group && !SHOWN.includes(group) && run.fields ? html`<small class="group">${group}: ${text(run.fields[group]) || "–"}</small>` : null}
      ${run.state === "stuck" ? html`<small>stuck since model call ${run.entry_step}, period ${run.period} calls</small>` : null}
      ${run.failure ? html`<small class="alarm">failed at model call ${run.failure.step}: ${run.failure.message}</small>` : null}
      ${run.tags.map((tag) => html`<span class="tag">${tag}</span>`)}
    </a>
    <div class="tiles">
      ${tiles.map((tile, place) => html`<${Tile} key=${(tile.image || tile.text).step}
        ...${{ tile, run, size, end, here, rank: (isSeen ? 0 : 1000) + tiles.length - place }} />`)}
      ${isPast ? html`<span class="ended" style=${{ width: `${size}px` }}>${why(run, step)}</span>` : null}
    </div>`;
}

function why(run, step) {
  if (run.failure) return `failed at model call ${run.failure.step}`;
  if (step >= run.max_length) return `ended after ${run.num_steps} model calls`;
  return run.num_steps ? `not yet: ${run.num_steps} model calls` : "not begun";
}

function Tile({ tile, run, size, end, here, rank }) {
  const [cell, own] = [tile.image || tile.text, tile.text];
  const isCurrent = [tile.image, tile.text].some((one) => one && one.step === end);
  const isKnown = cell.stored !== cell.step;
  const caption = own ? own.text : "";
  const href = address(here, { step: cell.step });
  const title = `step ${cell.step}${isKnown ? ` (as step ${cell.stored}: stuck)` : ""}`;
  return html`<a class=${`tile ${isCurrent ? "current" : ""} ${isKnown ? "again" : ""}`} href=${href} title=${title}
    style=${{ width: `${size}px` }} data-step=${cell.step} data-stored=${cell.stored}
    data-digest=${tile.image ? tile.image.digest : ""} data-text=${own ? own.digest : ""}>
    ${tile.image
      ? html`<${Thumbnail} store=${run.store} digest=${tile.image.digest} size=${size} rank=${rank} alt=${caption || `image of step ${cell.step}`} />`
      : null}
    ${own ? html`<span class=${tile.image ? "caption" : "caption alone"} style=${tile.image ? {} : { height: `${size}px` }} dir="auto">${own.text}</span>` : null}
  </a>`;
}

// A swipe to the left goes forward, as pages do: one step for every 40 px.
function useSwipe(step, max, move) {
  const begin = useRef(null);
  return useMemo(() => ({
    onTouchStart: (event) => {
      const [touch] = event.touches;
      begin.current = { x: touch.clientX, y: touch.clientY, step: step === "last" ? max : step, moved: false };
    },
    onTouchMove: (event) => {
      if (!begin.current) return;
      const [touch] = event.touches;
      const [dx, dy] = [touch.clientX - begin.current.x, touch.clientY - begin.current.y];
      if (!begin.current.moved && Math.abs(dx) < 24) return;
      if (!begin.current.moved && Math.abs(dy) > Math.abs(dx)) return (begin.current = null);
      begin.current.moved = true;
      move(Math.max(0, Math.min(max, begin.current.step - Math.round(dx / 40))));
    },
    onTouchEnd: () => (begin.current = null),
  }), [step, max, move]);
}
