// One slider for all runs: a step, or "last", where every run shows what it put out last.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./preact.js";

const PLAY_EVERY_MS = 350;

export function Slider({ step, max, move, told = null }) {
  const [isPlaying, setPlaying] = useState(false);
  const now = useRef({ step, max, move });
  now.current = { step, max, move };
  const value = step === "last" ? max : Math.min(step, max);
  const by = (number) => {
    const { step, max, move } = now.current;
    const from = step === "last" ? max : step;
    move(Math.max(0, Math.min(max, from + number)));
  };
  useEffect(() => {
    if (!isPlaying) return undefined;
    const timer = setInterval(() => {
      const { step, max, move } = now.current;
      if (step === "last" || step >= max) return setPlaying(false);
      return move(step + 1);
    }, PLAY_EVERY_MS);
    return () => clearInterval(timer);
  }, [isPlaying]);
  const play = () => {
    if (!isPlaying && (now.current.step === "last" || now.current.step >= now.current.max)) now.current.move(0);
    setPlaying((playing) => !playing);
  };
  useLayoutEffect(() => { // before it is seen: a key pressed at once is not lost
    const press = (event) => {
      if (/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && event.target.type !== "range") return;
      const far = event.shiftKey ? 10 : 1;
      const act = {
        ArrowRight: () => by(far), ArrowLeft: () => by(-far), Home: () => now.current.move(0),
        End: () => now.current.move("last"), " ": play,
      }[event.key];
      if (!act || event.metaKey || event.ctrlKey || event.altKey) return;
      if (event.key === " " && /^(BUTTON|A|SUMMARY)$/.test(event.target.tagName)) return;
      event.preventDefault();
      act();
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, [isPlaying]);
  return html`<div class="slider">
    <button aria-label=${isPlaying ? "Pause" : "Play"} aria-pressed=${isPlaying} onClick=${play}>${isPlaying ? "❚❚" : "▶"}</button>
    <input type="range" aria-label="step" min="0" max=${max} value=${value} onInput=${(e) => move(Number(e.target.value))} />
    <output>${told || html`${step === "last" ? "last step" : `step ${step}`} <span class="muted">of ${max + 1}</span>`}</output>
    <button class="quiet" aria-pressed=${step === "last"} onClick=${() => move("last")}>last</button>
  </div>`;
}
