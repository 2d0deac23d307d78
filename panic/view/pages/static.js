// The answers of a static bundle: from data in scripts beside the page, loaded when they are first needed.
// This file is a classic script that comes before the page's own.
"use strict";
(() => {
  const loaded = {};
  const waiting = {};
  window.panicData = (name, value) => waiting[name](value);

  function load(name) {
    if (!loaded[name]) {
      loaded[name] = new Promise((done, fail) => {
        waiting[name] = done;
        const script = document.createElement("script");
        script.src = `data/${name}.js`;
        script.onerror = () => fail(new Error(`${name}.js is not beside this page.`));
        document.head.append(script);
      });
    }
    return loaded[name];
  }

  // Filters of a bundle are words that a run must have: in its prompt, network, state, arm, label or tags.
  function matches(run, words) {
    const said = [run.prompt, run.network.join(" → "), run.state, run.arm, run.label || "", ...run.tags].join(" ").toLowerCase();
    return words.every((word) => said.includes(word));
  }

  function field(run, name) {
    if (name === "network") return run.network.join(" → ");
    if (name === "steps") return run.num_steps;
    const value = run[name];
    return Array.isArray(value) ? value.join(", ") : value;
  }

  function compare(a, b) {
    if (a === b) return 0;
    if (a === null || a === undefined) return 1;
    if (b === null || b === undefined) return -1;
    return a < b ? -1 : 1;
  }

  async function runs(query) {
    const { runs: all } = await load("experiment");
    const words = (query.where || "").toLowerCase().split(/\s+/).filter(Boolean);
    let found = all.filter((run) => matches(run, words));
    const keys = (query.sort || "").split(",").map((key) => key.trim()).filter(Boolean);
    if (keys.length) {
      found = [...found].sort((a, b) => {
        for (const key of keys) {
          const name = key.replace(/^[-+]/, "");
          const order = compare(field(a, name), field(b, name));
          if (order) return key.startsWith("-") ? -order : order;
        }
        return a.run - b.run;
      });
    }
    const columns = (query.columns || "").split(",").filter(Boolean);
    const [offset, limit] = [query.offset || 0, query.limit || 500];
    const part = found.slice(offset, offset + limit).map((run) =>
      columns.length ? { ...run, fields: Object.fromEntries(columns.map((name) => [name, field(run, name)])) } : run);
    return { total: found.length, next: offset + limit < found.length ? offset + limit : null, runs: part };
  }

  async function stepsOf(number) {
    const { runs: all, runsInFile } = await load("experiment");
    const place = all.findIndex((run) => run.run === number);
    if (place < 0) throw new Error(`There is no run ${number}.`);
    const file = await load(`steps-${Math.floor(place / runsInFile)}`);
    return [all[place], file[number] || []];
  }

  async function cells(query) {
    const found = [];
    for (const number of String(query.runs).split(",").filter(Boolean).map(Number)) {
      const [run, steps] = await stepsOf(number);
      const end = run.period === null ? steps.length : Math.max(steps.length, run.max_length);
      const last = query.step === "last" ? steps.length - 1 : Math.min(Number(query.step), end - 1);
      const from = (query.step === "last" ? last : Number(query.step)) - (query.before || 0);
      for (let step = Math.max(0, from); step <= last; step += 1) {
        const stored = step < steps.length ? step : run.entry_step + ((step - run.entry_step) % run.period);
        const one = steps[stored];
        if (one) found.push({ run: number, step, stored, digest: one.output, modality: one.modality, text: one.text, length: one.text_length });
      }
    }
    return { step: query.step, cells: found };
  }

  async function get(path, query) {
    const { about } = await load("experiment");
    const [, , , , page, number, rest] = path.split("/");
    if (path === "stores") return { stores: [{ store: "0", name: about.name, state: "", problem: "" }] };
    if (path === "stores/0/experiments") {
      const { counts } = about;
      return { total: 1, next: null, experiments: [{ ...about, ...counts }] };
    }
    if (!path.startsWith("stores/0/experiments/")) throw new Error("This is not in a static copy.");
    if (!page) return about;
    if (page === "cells") return cells(query);
    if (page === "runs" && !number) return runs(query);
    if (page === "runs" && rest === "steps") {
      const [, steps] = await stepsOf(Number(number));
      const [offset, limit] = [query.offset || 0, query.limit || 1000];
      return { total: steps.length, next: null, steps: steps.slice(offset, offset + limit) };
    }
    if (page === "runs") return (await stepsOf(Number(number)))[0];
    throw new Error("This is not in a static copy.");
  }

  window.panicStatic = { get, version: "", image: (digest) => `images/${digest}.webp` };
})();
