import { html } from "./preact.js";
export function Side() { return html`<p>not yet</p>`; }
