// An experiment whose shards are in several stores, which the address names with + between them.
import { experimentPath } from "./api.js";
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

// An experiment as each of the stores has it, and as all have it together; null until all is known.
export function useExperiment(stores, experiment) {
  const { all, error } = useAnswers(stores.map((one) => experimentPath(one, experiment)));
  const { found, error: uncounted } = useAnswer(stores.length > 1 ? countsPath(stores, experiment) : "");
  const isKnown = all && (stores.length === 1 || found);
  return { all: isKnown ? all : null, about: isKnown ? together(all, found?.counts) : null, error: error || uncounted };
}

export function countsPath(stores, experiment) {
  return `shards/${stores.map(encodeURIComponent).join("+")}/experiments/${encodeURIComponent(experiment)}/counts`;
}

// Shards of one experiment: all of their runs, each counted once, and the longest of their lengths.
export function together(parts, counts) {
  if (parts.length === 1) return parts[0];
  const states = [...new Set(parts.map((part) => part.state))];
  const sessions = parts.flatMap((part) => part.sessions).sort((a, b) => a.started_at - b.started_at);
  return {
    ...parts[0], counts, state: states.join(", "), sessions,
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
