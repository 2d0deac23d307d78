// Pages of an experiment whose shards are in several stores: of one store at a time, which the address names.
import { html } from "./preact.js";
import { address } from "./route.js";
import { useAnswer } from "./parts.js";

export function useStoreNames(isNeeded = true) {
  const { found } = useAnswer(isNeeded ? "stores" : "", {}, { isLive: false });
  return (store) => {
    const name = found && found.stores.find((one) => one.store === store)?.name;
    return name ? `${name} (store ${store})` : `store ${store}`;
  };
}

export function Shards({ Page, place, store, experiment }) {
  const stores = store.split("+");
  const chosen = stores.includes(place.query.in) ? place.query.in : stores[0];
  const nameOf = useStoreNames();
  return html`
    <nav class="bar shards" aria-label="stores"><span class="muted">shards in</span>
      ${stores.map((one) => html`<a key=${one} class=${one === chosen ? "here" : ""} aria-current=${one === chosen ? "true" : null}
        href=${address(place.parts, { in: one })}>${nameOf(one)}</a>`)}</nav>
    <${Page} key=${chosen} place=${place} store=${chosen} experiment=${experiment} />`;
}
