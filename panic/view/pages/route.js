// Where the reader is: #/STORE/EXPERIMENT/PAGE?query. The address says all that a page shows, so that it can be
// passed on and the back button works.

export function parse(hash) {
  const [path, text = ""] = hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decoded);
  return { parts, query: Object.fromEntries(new URLSearchParams(text)) };
}

export function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function address(parts, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const text = new URLSearchParams(given).toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

export function go(parts, query = {}) {
  location.hash = address(parts, query);
}

// Changes of the slider replace the address: nobody wants to go back through a hundred steps.
export function replace(parts, query = {}) {
  history.replaceState(null, "", address(parts, query));
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}
