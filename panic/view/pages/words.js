// Which words of a text are new against another one, and which are gone: the longest common subsequence.
import { html } from "./preact.js";

const MOST_WORDS = 800;

export function differences(before, after) {
  const [a, b] = [words(before), words(after)];
  if (a.length > MOST_WORDS || b.length > MOST_WORDS) return [["same", after]];
  const table = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      table[i][j] = a[i] === b[j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
    }
  }
  const found = [];
  const add = (kind, word) => {
    const last = found[found.length - 1];
    if (last && last[0] === kind) last[1] += ` ${word}`;
    else found.push([kind, word]);
  };
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      add("same", b[j]);
      i += 1;
      j += 1;
    } else if (i < a.length && (j === b.length || table[i + 1][j] >= table[i][j + 1])) {
      add("gone", a[i]);
      i += 1;
    } else {
      add("new", b[j]);
      j += 1;
    }
  }
  return found;
}

const words = (text) => text.split(/\s+/).filter(Boolean);

export function Marked({ before, after }) {
  if (before === null || before === undefined || before === after) return after;
  return differences(before, after).map(([kind, text]) =>
    kind === "same" ? html`<span>${text} </span>` : kind === "new" ? html`<ins>${text} </ins>` : html`<del>${text} </del>`
  );
}
