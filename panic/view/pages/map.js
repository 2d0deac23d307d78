import { html } from "./preact.js";
export function PlaceMap() { return html`<p>not yet</p>`; }
