import { html } from "./preact.js";
export function Run() { return html`<p>not yet</p>`; }
