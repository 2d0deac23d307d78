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
  return bundle ? bundle.get(path, query) : answered(await asked(path, query, signal));
}

function asked(path, query, signal) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const text = new URLSearchParams(given).toString();
  return fetch(ROOT + path + (text ? `?${text}` : ""), { signal });
}

// An answer that is no JSON, as it comes.
export async function fetched(path, query, signal) {
  const response = await asked(path, query, signal);
  return response.ok ? response : answered(response);
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

// The side of the thumbnails that are at least `size` pixels wide on this screen; undefined where none is.
export function thumbnailSide(size) {
  const wanted = size * Math.min(window.devicePixelRatio || 1, 2);
  return [64, 128, 256].find((one) => one >= wanted);
}

// The address of an image: a thumbnail for a place of `size` pixels, or the image itself.
export function imageAddress(store, digest, size = 0) {
  if (bundle) return bundle.image(digest);
  const fits = size && thumbnailSide(size);
  return `${ROOT}stores/${encodeURIComponent(store)}/${fits ? `thumbnails/${fits}/` : "tiles/"}${digest}`;
}

// Listeners are called whenever a store has changed; `connected` with whether the
// server answers. The browser connects again by itself, unless it was refused.
const listeners = new Set();
const watchers = new Set();
let source = null;

function connect() {
  source = new EventSource(`${ROOT}events`);
  source.onopen = () => watchers.forEach((watch) => watch(true));
  source.onmessage = () => listeners.forEach((listen) => listen());
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
