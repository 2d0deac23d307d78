import { html } from "./preact.js";
export function Questions() { return html`<p>not yet</p>`; }
