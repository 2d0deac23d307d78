// The runs of an experiment in an order, loaded piece by piece, and what they put out; of one or several stores
// that hold shards of it. Nothing here draws.
import { bundle, experimentPath, get, thumbnailSide } from "./api.js";
import { known } from "./images.js";

const PIECE = 100;
const MOST_CELLS = 60000;
const MOST_ASKED = 6000; // cells of one answer

export class Rows {
  constructor(stores, experiment, query) {
    this.stores = stores;
    this.paths = stores.map((store) => experimentPath(store, experiment));
    this.turnsPath = `shards/${stores.map(encodeURIComponent).join("+")}/experiments/${encodeURIComponent(experiment)}/turns`;
    this.places = null; // of rows of several stores in their order, each run once
    this.query = query;
    this.totals = stores.map(() => 0);
    this.pieces = new Map();
    this.cells = new Map();
    this.loading = new Set();
    this.files = []; // of the store that answered, by store
    this.ages = stores.map(() => 0); // how often others came
  }

  get total() {
    if (this.places) return this.places.length;
    return this.totals.reduce((sum, one) => sum + one, 0);
  }

  // The store of a row and its place there.
  locate(index) {
    if (this.places) return this.places[index] || [0, Infinity];
    let place = index;
    for (let store = 0; store < this.stores.length; store += 1) {
      if (place < this.totals[store]) return [store, place];
      place -= this.totals[store];
    }
    return [0, index];
  }

  at(index) {
    const [store, place] = this.locate(index);
    const piece = this.pieces.get(`${store}:${Math.floor(place / PIECE)}`);
    const run = piece && piece[place % PIECE];
    return run ? { ...run, store: this.stores[store], shard: store } : null;
  }

  // The least and greatest number of a field among the runs that are here.
  range(field) {
    let [low, high] = [Infinity, -Infinity];
    for (const piece of this.pieces.values()) {
      for (const { fields } of piece) {
        if (typeof fields?.[field] !== "number") continue;
        [low, high] = [Math.min(low, fields[field]), Math.max(high, fields[field])];
      }
    }
    return [low, high];
  }

  // Of `cells` rows the cells from `step - before` to `step` come along, for what is in sight at first.
  async begin(cells, step, before, size) {
    const most = Math.min(cells, Math.floor(MOST_ASKED / (before + 1)));
    const view = { cells: most, step, before, thumbnails: sideOf(size) };
    await Promise.all([this.takeTurns(), ...this.stores.map((_, store) => this.load(store, 0, view))]);
  }

  // The first so many runs.
  async first(number) {
    await Promise.all([this.takeTurns(), ...this.stores.map((_, store) => this.load(store, 0))]);
    await this.need(0, number - 1);
    return Array.from({ length: number }, (_, index) => this.at(index)).filter(Boolean);
  }

  async takeTurns() {
    const { where, sort } = this.query;
    if (this.stores.length < 2) return;
    const { turns, copies } = await get(this.turnsPath, { where, sort });
    const [counts, known] = [this.stores.map(() => 0), new Set(copies)];
    this.places = turns.map((store) => [store, counts[store]++]).filter((_, place) => !known.has(place));
  }

  async load(store, number, view = {}) {
    const key = `${store}:${number}`;
    if (this.loading.has(key)) return;
    this.loading.add(key);
    const age = this.ages[store];
    try {
      const found = await get(`${this.paths[store]}/runs`, { ...this.query, ...view, offset: number * PIECE, limit: PIECE });
      if (!this.isOf(store, found.files, age)) return;
      this.totals[store] = found.total;
      this.pieces.set(key, found.runs);
      if (found.cells) this.keep(store, found, view.thumbnails);
    } finally {
      this.loading.delete(key);
    }
  }

  piecesOf(first, last) {
    const found = new Map();
    for (let index = first; index <= last && index < this.total; index += 1) {
      const [store, place] = this.locate(index);
      const number = Math.floor(place / PIECE);
      found.set(`${store}:${number}`, [store, number]);
    }
    return found;
  }

  // Load the rows that are not there yet, or all of them again; whether anything was loaded.
  async need(first, last, { again = false } = {}) {
    if (again) await this.takeTurns();
    const wanted = [...this.piecesOf(first, last)].filter(([key]) => again || !this.pieces.has(key));
    if (again) for (const key of this.pieces.keys()) if (!wanted.some(([one]) => one === key)) this.pieces.delete(key);
    await Promise.all(wanted.map(([, [store, number]]) => this.load(store, number)));
    return wanted.length > 0;
  }

  // Whether an answer is of the files that are at the path of a store by now. Others may number other runs as
  // these were, which are forgotten; an answer of other files that was asked for earlier is of old ones.
  isOf(store, files, age) {
    if (files === this.files[store]) return true;
    if (age !== this.ages[store]) return false;
    this.files[store] = files;
    this.ages[store] += 1;
    for (const all of [this.pieces, this.cells]) {
      for (const key of [...all.keys()]) if (key.startsWith(`${store}:`)) all.delete(key);
    }
    return true;
  }

  // What a run put out at the steps from `step - before` to `step`, as far as it is here; null where it is not.
  series(run, step, before) {
    const end = step === "last" ? run.num_steps - 1 : step;
    const found = [];
    for (let one = Math.max(0, end - before); one <= end; one += 1) {
      const cell = this.cells.get(`${run.shard}:${run.run}:${one}`);
      if (cell) found.push(cell);
    }
    return found;
  }

  ends(run) {
    return run.period === null ? run.num_steps : Math.max(run.num_steps, run.max_length);
  }

  // How many steps before `step` the first one is that is not here; -1 where all are.
  lacks(run, step, before) {
    const end = step === "last" ? run.num_steps - 1 : Math.min(step, this.ends(run) - 1);
    const from = step === "last" ? end : step;
    for (let one = Math.max(0, from - before); one <= end; one += 1) {
      if (!this.cells.has(`${run.shard}:${run.run}:${one}`)) return from - one;
    }
    return -1;
  }

  // Ask for what these runs put out and is not here yet.
  async fill(runs, step, most, size) {
    if (this.cells.size > MOST_CELLS) this.cells.clear();
    const lacking = new Map(runs.map((run) => [run, this.lacks(run, step, most)]));
    const wanted = runs.filter((run) => lacking.get(run) >= 0);
    const before = Math.max(0, ...lacking.values());
    const asks = [];
    for (let store = 0; store < this.stores.length; store += 1) {
      const own = wanted.filter((run) => run.shard === store).map((run) => run.run);
      const many = Math.max(1, Math.min(200, Math.floor(MOST_ASKED / (before + 1))));
      for (let start = 0; start < own.length; start += many) {
        asks.push(this.ask(store, own.slice(start, start + many), step, before, sideOf(size)));
      }
    }
    await Promise.all(asks);
    return asks.length > 0;
  }

  async ask(store, runs, step, before, thumbnails) {
    const age = this.ages[store];
    const found = await get(`${this.paths[store]}/cells`, { runs: runs.join(","), step, before, thumbnails });
    if (this.isOf(store, found.files, age)) this.keep(store, found, thumbnails);
  }

  keep(store, { cells, thumbnails = {} }, side) {
    for (const cell of cells) this.cells.set(`${store}:${cell.run}:${cell.step}`, cell);
    for (const [digest, data] of Object.entries(thumbnails)) known(this.stores[store], side, digest, data);
  }
}

// The side of the small images that come beside the cells; none where images are shown as they are.
function sideOf(size) {
  return bundle ? undefined : thumbnailSide(size);
}

// Steps as tiles: a text stands below the image that it was made from, or by itself.
export function tilesOf(series, texts) {
  const tiles = [];
  for (const cell of series) {
    const last = tiles[tiles.length - 1];
    if (cell.modality === "image") {
      if (texts !== "only") tiles.push({ image: cell, text: null });
    } else if (texts === "below" && last && last.image && !last.text && last.image.step === cell.step - 1) {
      last.text = cell;
    } else if (texts !== "none") {
      tiles.push({ image: null, text: cell });
    }
  }
  return tiles;
}
