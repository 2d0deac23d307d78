// Colours of categories, the same for the same value on every page: those of Okabe and Ito, then hues.
const LIGHT = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B8A800"];
const DARK = ["#56B4E9", "#E69F00", "#2CC295", "#E093BE", "#F0793A", "#8FB8FF", "#F0E442"];
const STATES = new Map([["running", 0], ["done", 2], ["stuck", 3], ["repeated", 1], ["failed", 4]]);
const GREY = "#8a939c";
const given = new Map();
const dark = matchMedia("(prefers-color-scheme: dark)");

export function colourOf(value) {
  if (value === "" || value === "todo") return GREY;
  if (!STATES.has(value) && !given.has(value)) given.set(value, given.size);
  const number = STATES.get(value) ?? given.get(value);
  return (dark.matches ? DARK : LIGHT)[number] || `hsl(${(number * 137.5) % 360} 55% 50%)`;
}

// The colour of a number between a low and a high one: blue to red by way of green.
export function shadeOf(value, low, high) {
  if (typeof value !== "number") return GREY;
  return `hsl(${240 - 240 * (high > low ? (value - low) / (high - low) : 0.5)} 70% 50%)`;
}
