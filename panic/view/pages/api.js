// What is asked of the server, and what it tells by itself. In a static bundle the same questions are answered
// from data that stands beside the page (static.js sets window.panicStatic).

export class Failed extends Error {
  constructor(status, said) {
    super(said.error || `The server answered ${status}.`);
    this.status = status;
    this.hint = said.hint || "";
  }
}

export const bundle = window.panicStatic || null;
const ROOT = "/api/1/";
let session = null;

async function answered(response) {
  const said = await response.json().catch(() => ({}));
  if (!response.ok) throw new Failed(response.status, said);
  return said;
}

export async function get(path, query = {}, signal = undefined) {
  if (bundle) return bundle.get(path, query);
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const text = new URLSearchParams(given).toString();
  return answered(await fetch(ROOT + path + (text ? `?${text}` : ""), { signal }));
}

export async function about() {
  if (bundle) return { version: bundle.version, write: null };
  session = session || (await get("session"));
  return session;
}

export async function post(path, body = {}) {
  const send = async () => {
    const { write } = await about();
    const headers = { "content-type": "application/json", "x-panic-write": write || "" };
    return fetch(ROOT + path, { method: "POST", headers, body: JSON.stringify(body) });
  };
  let response = await send();
  if (response.status === 403) {
    session = null; // the cookie may be another one by now
    response = await send();
  }
  return answered(response);
}

export function experimentPath(store, experiment) {
  return `stores/${encodeURIComponent(store)}/experiments/${encodeURIComponent(experiment)}`;
}

// The address of an image: a thumbnail that is at least `side` pixels wide on this screen, or the image itself.
export function imageAddress(store, digest, side = 0) {
  if (bundle) return bundle.image(digest);
  const wanted = side * Math.min(window.devicePixelRatio || 1, 2);
  const fits = [64, 128, 256].find((one) => one >= wanted);
  const place = side && fits ? `thumbnails/${fits}/` : "tiles/";
  return `${ROOT}stores/${encodeURIComponent(store)}/${place}${digest}`;
}

// Listeners are called with the states of all stores whenever one has changed; `connected` with whether the
// server answers. The browser connects again by itself, unless it was refused.
const listeners = new Set();
const watchers = new Set();
export let states = {};
let source = null;

function connect() {
  source = new EventSource(`${ROOT}events`);
  source.onopen = () => watchers.forEach((watch) => watch(true));
  source.onmessage = (event) => {
    states = JSON.parse(event.data);
    listeners.forEach((listen) => listen(states));
  };
  source.onerror = () => {
    watchers.forEach((watch) => watch(false));
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  };
}

export function onChange(listen) {
  if (bundle) return () => {};
  if (!source) connect();
  listeners.add(listen);
  return () => listeners.delete(listen);
}

export function onConnection(watch) {
  if (bundle) return () => {};
  if (!source) connect();
  watchers.add(watch);
  return () => watchers.delete(watch);
}
