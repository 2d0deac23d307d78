// Colours of categories, the same for the same value on every page: those of Okabe and Ito, then hues.
const NAMED = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B8A800"];
const STATES = {
  todo: "#8a939c", running: "#0072B2", done: "#009E73", stuck: "#CC79A7", repeated: "#E69F00", failed: "#D55E00",
};
const given = new Map();

export function colourOf(value) {
  if (value === "") return "#8a939c";
  if (STATES[value]) return STATES[value];
  if (!given.has(value)) {
    const number = given.size;
    given.set(value, number < NAMED.length ? NAMED[number] : `hsl(${(number * 137.5) % 360} 55% 50%)`);
  }
  return given.get(value);
}
