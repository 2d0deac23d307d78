import { html } from "./preact.js";
export function Status() { return html`<p>not yet</p>`; }
