// An experiment whose shards are in several stores, which the address names with + between them.
import { useAnswer } from "./parts.js";

export function useStoreNames(isNeeded = true) {
  const { found } = useAnswer(isNeeded ? "stores" : "", {}, { isLive: false });
  return (store) => {
    const name = found && found.stores.find((one) => one.store === store)?.name;
    return name ? `${name} (store ${store})` : `store ${store}`;
  };
}

// What each of the stores answers to a question, as many as an address has; null until all have.
export function useAnswers(paths, query = {}, how = {}) {
  const answers = paths.map((path) => useAnswer(path, query, how));
  return {
    all: answers.every((one) => one.found) ? answers.map((one) => one.found) : null,
    error: answers.map((one) => one.error).find(Boolean) || null,
  };
}

// Shards of one experiment: all of their runs, the longest of their lengths.
export function together(parts) {
  if (parts.length === 1) return parts[0];
  const states = [...new Set(parts.map((part) => part.state))];
  const sessions = parts.flatMap((part) => part.sessions).sort((a, b) => a.started_at - b.started_at);
  return {
    ...parts[0], counts: sum(parts.map((part) => part.counts)), state: states.join(", "), sessions,
    max_length: Math.max(...parts.map((part) => part.max_length)),
  };
}

// Where shards stand: what is stored in all, the seconds of each model in all; the slowest says how long it takes.
export function standing(parts) {
  const models = new Map();
  for (const { model, ...numbers } of parts.flatMap((part) => part.models)) models.set(model, sum([models.get(model) || {}, numbers]));
  const known = parts.map((part) => part.eta_s).filter((one) => one !== null);
  return {
    ...sum(parts.map(({ embeddings, diagrams, vectorisations, distances }) => ({ embeddings, diagrams, vectorisations, distances }))),
    models: [...models].map(([model, numbers]) => ({ model, ...numbers })),
    eta_s: known.length ? Math.max(...known) : null,
    at: Math.min(...parts.map((part) => part.at)), revision: parts.map((part) => part.revision).join(" + "),
  };
}

// Numbers by name, added up.
function sum(parts) {
  const found = {};
  for (const part of parts) for (const [name, number] of Object.entries(part)) found[name] = (found[name] || 0) + number;
  return found;
}
