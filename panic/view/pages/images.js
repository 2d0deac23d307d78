// The small images of the wall: many in one answer, those in sight and nearest to the step first. A browser asks a
// server for six things at a time, and for hundreds of images one by one that takes longer than to make them.
import { html, useLayoutEffect, useState } from "./preact.js";
import { bundle, fetched, imageAddress, thumbnailSide } from "./api.js";

const IN_PACK = 16;
const PACKS = 2;
const MOST_KEPT = 4000;
const kept = new Map(); // addresses of images in this page, by store, side and digest
const wanted = new Map();
const asking = new Set();
const REST_MS = 2000;
let isPlanned = false;
let isResting = false; // the server did not answer

// rank: what is asked for first has the lowest.
export function Thumbnail({ store, digest, size, rank, ...looks }) {
  const side = bundle ? null : thumbnailSide(size);
  const key = `${store}/${side}/${digest}`;
  const [, setTick] = useState(0);
  const address = side ? kept.get(key) : imageAddress(store, digest, size);
  useLayoutEffect(() => {
    if (address) return undefined;
    const wish = { store, side, digest, rank, draw: () => setTick((tick) => tick + 1) };
    const all = wanted.get(key) || new Set();
    wanted.set(key, all.add(wish));
    plan();
    return () => {
      all.delete(wish);
      if (!all.size && wanted.get(key) === all) wanted.delete(key);
    };
  }, [key, rank, Boolean(address)]);
  // Without an address it has no `src` and no `alt`: else it is shown as broken until the image comes.
  return html`<img key=${key} ...${looks} alt=${address ? looks.alt : ""} width=${size} height=${size} style=${{ width: `${size}px`, height: `${size}px` }}
    src=${address || undefined} data-waits=${address ? null : ""} decoding="async" />`;
}

// After all wishes of one drawing are there.
function plan() {
  if (isPlanned) return;
  isPlanned = true;
  queueMicrotask(() => {
    isPlanned = false;
    ask();
  });
}

function ask() {
  if (isResting) return;
  for (const one of asking) if (!one.keys.some((key) => wanted.has(key))) one.stop.abort();
  while ([...asking].filter((one) => !one.stop.signal.aborted).length < PACKS) {
    const taken = new Set([...asking].flatMap((one) => (one.stop.signal.aborted ? [] : one.keys)));
    const free = [...wanted].filter(([key]) => !taken.has(key)).map(([key, all]) => {
      const wishes = [...all];
      return { ...wishes[0], key, rank: Math.min(...wishes.map((wish) => wish.rank)) };
    });
    if (!free.length) return;
    free.sort((a, b) => a.rank - b.rank);
    const { store, side } = free[0];
    const pack = free.filter((one) => one.store === store && one.side === side).slice(0, IN_PACK);
    const one = { keys: pack.map((each) => each.key), stop: new AbortController() };
    asking.add(one);
    receive(store, side, pack, one.stop.signal)
      .catch((error) => {
        if (one.stop.signal.aborted) return;
        if (error.status >= 400 && error.status < 500) pack.forEach(lost); // asking again would not help
        else rest();
      })
      .finally(() => {
        asking.delete(one);
        plan();
      });
  }
}

function rest() {
  isResting = true;
  setTimeout(() => {
    isResting = false;
    plan();
  }, REST_MS);
}

async function receive(store, side, pack, signal) {
  const path = `stores/${encodeURIComponent(store)}/thumbnails/${side}`;
  const response = await fetched(path, { digests: pack.map((one) => one.digest).join(",") }, signal);
  const reader = response.body.getReader();
  const missing = new Set(pack);
  let left = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const data = new Uint8Array(left.length + value.length);
    data.set(left);
    data.set(value, left.length);
    let at = 0;
    const numbers = new DataView(data.buffer);
    while (data.length - at >= 8 && data.length - at - 8 >= numbers.getUint32(at + 4, true)) {
      const [place, length] = [numbers.getUint32(at, true), numbers.getUint32(at + 4, true)];
      at += 8 + length;
      missing.delete(pack[place]);
      if (length) has(pack[place].key, URL.createObjectURL(new Blob([data.subarray(at - length, at)], { type: "image/webp" })));
      else lost(pack[place]);
    }
    left = data.slice(at);
  }
  missing.forEach(lost);
}

// An image that came beside something else.
export function known(store, side, digest, base64) {
  has(`${store}/${side}/${digest}`, `data:image/webp;base64,${base64}`);
}

// Of an image that did not come, its own address says why.
function lost({ store, side, digest, key }) {
  has(key, imageAddress(store, digest, side));
}

function has(key, address) {
  kept.set(key, address);
  const wishes = wanted.get(key) || [];
  wanted.delete(key);
  for (const wish of wishes) wish.draw();
  if (kept.size <= MOST_KEPT) return;
  const [oldest, old] = kept.entries().next().value;
  kept.delete(oldest);
  if (old.startsWith("blob:")) setTimeout(() => URL.revokeObjectURL(old), 10000); // it may be about to be drawn
}
