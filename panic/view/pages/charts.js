// Charts of questions: Vega-Lite specifications, drawn here by the Vega of the report, with its tips.
// Expressions are interpreted and not compiled (`ast`), which the page's policy would not let run.
import { html, useEffect, useMemo, useRef, useState } from "./preact.js";

let library = null;

function load() {
  library = library || new Promise((done, fail) => {
    const script = document.createElement("script");
    script.src = "/static/vega.js";
    script.onload = done;
    script.onerror = () => {
      library = null; // the next chart tries again
      script.remove();
      fail(new Error("What draws charts did not come from the server."));
    };
    document.head.append(script);
  });
  return library;
}

export function Chart({ chart, title }) {
  const place = useRef(null);
  const [state, setState] = useState("drawing");
  const caption = useMemo(() => JSON.parse(chart.spec).description, [chart.spec]);
  const [error, setError] = useState(null);
  useEffect(() => {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const hints = tips(place.current);
    let [view, round] = [null, 0];
    const draw = async () => {
      const own = (round += 1);
      try {
        await load();
        const spec = unfolded(JSON.parse(chart.spec));
        if (spec.width === "container") window.fitLabels(spec, place.current.clientWidth);
        const theme = window.panicThemes[dark.matches ? "dark" : "light"];
        const config = window.fitLegends(theme, spec, place.current.clientWidth);
        const made = await window.vegaEmbed(place.current.firstChild, spec,
          { config, ast: true, actions: false, defaultStyle: false, renderer: "svg", tooltip: hints.show });
        if (own !== round) return made.finalize();
        if (view) view.finalize();
        view = made;
        setState("drawn");
      } catch (problem) {
        if (own === round) setError(problem);
      }
    };
    draw();
    dark.addEventListener("change", draw);
    return () => {
      round = -1;
      dark.removeEventListener("change", draw);
      hints.leave();
      if (view) view.finalize();
    };
  }, [chart.spec]);
  return html`<figure class="chart" role="img" aria-label=${`${title} ${chart.heading}`}>
    ${chart.heading ? html`<figcaption class="muted">${chart.heading}</figcaption>` : null}
    ${error ? html`<p class="message">This chart could not be drawn: ${error.message}</p>` : null}
    <div class="scroll" ref=${place} data-chart=${state}><div></div></div>
    ${state === "drawing" && !error ? html`<p class="muted">It is being drawn …</p>` : null}
    ${caption ? html`<small class="muted">${caption}</small>` : null}
  </figure>`;
}

// Rows as objects: Vega's own reader of CSV compiles a function, which the page's policy would not let run.
function unfolded(part, sets = part.datasets || {}) {
  if (typeof sets[part.name] === "string" && part.format) {
    part.values = sets[part.name];
    delete part.name; // else Vega-Lite takes the text of the set again
  }
  if (typeof part.values === "string" && part.format?.type === "csv") {
    const [names, ...rows] = records(part.values);
    part.values = rows.map((row) => Object.fromEntries(names.map((name, place) => [name, row[place] ?? ""])));
    part.format.type = "json";
    return part;
  }
  for (const value of Object.values(part)) if (value && typeof value === "object") unfolded(value, sets);
  return part;
}

// The fields of a CSV text, record by record.
export function records(text) {
  const found = [];
  const field = /("(?:[^"]|"")*"|[^",\r\n]*)(,|\r?\n|$)/gy;
  let record = [];
  while (field.lastIndex < text.length) {
    const [, value, end] = field.exec(text);
    record.push(value.startsWith('"') ? value.slice(1, -1).replaceAll('""', '"') : value);
    if (end === ",") {
      if (field.lastIndex === text.length) record.push("");
    }
    if (end !== "," || field.lastIndex === text.length) {
      found.push(record);
      record = [];
    }
  }
  return found;
}

// What a mark says when it is pointed at: texts of a store, so as texts.
function tips(place) {
  const box = document.createElement("div");
  box.className = "card tip";
  box.setAttribute("role", "tooltip");
  const show = (_, event, item, value) => {
    box.remove();
    if (value === null || value === undefined || value === "") return;
    const rows = typeof value === "object" ? Object.entries(value) : [["", value]];
    box.replaceChildren(...rows.map(([name, said]) => {
      const row = document.createElement("div");
      const key = document.createElement("span");
      key.className = "muted";
      key.textContent = name ? `${name} ` : "";
      const own = typeof said === "string" && said.startsWith("data:image/") ? document.createElement("img") : document.createElement("span");
      if (own.tagName === "IMG") own.src = said;
      else own.textContent = String(said).slice(0, 600);
      own.dir = "auto";
      row.append(key, own);
      return row;
    }));
    place.append(box);
    const [wide, high] = [box.offsetWidth, box.offsetHeight];
    box.style.left = `${Math.max(4, Math.min(event.clientX + 14, window.innerWidth - wide - 8))}px`;
    box.style.top = `${event.clientY + 18 + high > window.innerHeight ? Math.max(4, event.clientY - high - 12) : event.clientY + 18}px`;
  };
  return { show, leave: () => box.remove() };
}
