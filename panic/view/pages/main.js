// The page: which part of it is shown, whether the server answers, the keys that work everywhere.
import { html, render, useEffect, useErrorBoundary, useLayoutEffect, useState } from "./preact.js";
import { bundle, onConnection } from "./api.js";
import { address, parse } from "./route.js";
import { Help, Message } from "./parts.js";
import { Stores } from "./stores.js";
import { Wall } from "./wall.js";
import { Run } from "./run.js";
import { Status } from "./status.js";
import { Questions } from "./questions.js";
import { PlaceMap } from "./map.js";
import { Side } from "./side.js";
import { Trainings } from "./trainings.js";

const PAGES = { status: Status, run: Run, questions: Questions, map: PlaceMap };

function leaveTokenOut() {
  const here = new URL(location.href);
  if (!here.searchParams.has("token")) return;
  here.searchParams.delete("token");
  history.replaceState(null, "", here.pathname + here.search + here.hash);
}

function App() {
  const [place, setPlace] = useState(parse(location.hash));
  const [isConnected, setConnected] = useState(true);
  const [isHelping, setHelping] = useState(false);
  useLayoutEffect(() => {
    const read = () => setPlace(parse(location.hash));
    window.addEventListener("hashchange", read);
    return () => window.removeEventListener("hashchange", read);
  }, []);
  useLayoutEffect(() => onConnection(setConnected), []);
  useLayoutEffect(() => { // as all that listens, before the page is seen
    const press = (event) => {
      if (event.key === "Escape") setHelping(false);
      if (isTyping(event.target)) return;
      if (event.key === "?") setHelping((now) => !now);
      if (event.key === "/") {
        const search = document.querySelector("[data-search]");
        if (search) {
          event.preventDefault();
          search.focus();
          search.select();
        }
      }
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, []);
  const [store, experiment, page] = place.parts;
  const Page = store === "side" ? Side : store === "trainings" ? Trainings : !experiment ? Stores : PAGES[page] || Wall;
  useEffect(() => {
    document.title = experiment ? `${experiment} · panic view` : "panic view";
  }, [experiment]);
  return html`
    <a class="skip" href="#content">To the content</a>
    <header class="top">
      <a class="brand" href=${address([])}>panic</a>
      ${experiment && !["side", "trainings"].includes(store) ? html`<${Tabs} store=${store} experiment=${experiment} page=${page} />` : null}
      <span class="space"></span>
      ${bundle ? html`<span class="muted">static copy</span>` : null}
      ${isConnected ? null : html`<span class="badge failed" role="status">the server does not answer</span>`}
      <button class="quiet" title="Keys (?)" aria-label="Keys" onClick=${() => setHelping(true)}>?</button>
    </header>
    <main id="content" tabindex="-1">
      <${Careful} key=${[place.parts[2], store, experiment].join()} place=${place}>
        <${Page} place=${place} store=${store} experiment=${experiment} /><//>
    </main>
    ${isHelping ? html`<${Help} close=${() => setHelping(false)} />` : null}
  `;
}

// What goes wrong while a page is drawn is told in its place; another address is drawn anew.
function Careful({ children, place }) {
  const [error, forget] = useErrorBoundary();
  useEffect(() => forget(), [JSON.stringify(place)]);
  return error ? html`<${Message} error=${error} />` : children;
}

function Tabs({ store, experiment, page }) {
  const tabs = { "": "wall", status: "progress", map: "map", questions: "questions" };
  const shown = bundle ? [["", "wall"]] : Object.entries(tabs);
  return html`<nav class="tabs">
    ${shown.map(
      ([key, name]) =>
        html`<a
          class=${(page || "") === key ? "here" : ""}
          aria-current=${(page || "") === key ? "page" : null}
          href=${address(key ? [store, experiment, key] : [store, experiment])}
          >${name}</a
        >`
    )}
  </nav>`;
}

export function isTyping(element) {
  return /^(INPUT|TEXTAREA|SELECT)$/.test(element.tagName) && element.type !== "range";
}

leaveTokenOut();
const root = document.getElementById("app");
root.textContent = "";
render(html`<${App} />`, root);
