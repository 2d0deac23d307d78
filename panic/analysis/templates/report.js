// Draw the charts with the reader's light or dark theme, and again when it changes.
const specs = JSON.parse(document.getElementById("specs").textContent);
const themes = JSON.parse(document.getElementById("themes").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
let views = [];

async function draw() {
  views.forEach((view) => view.finalize());
  const config = themes[dark.matches ? "dark" : "light"];
  const places = [...document.querySelectorAll("[data-chart]")];
  const actions = { export: true, source: false, compiled: false, editor: false };
  const results = await Promise.allSettled(
    places.map((place) => {
      const spec = specs[Number(place.dataset.chart)];
      const shown = spec.width === "container" ? fitLabels(spec, place.clientWidth) : spec;
      return vegaEmbed(place, shown, { config: fitLegends(config, spec, place.clientWidth), actions, renderer: "svg" });
    })
  );
  views = results.filter((result) => result.status === "fulfilled").map((result) => result.value);
  results.forEach((result, i) => {
    if (result.status === "rejected") places[i].textContent = `This chart could not be drawn: ${result.reason}`;
  });
  document.body.dataset.drawn = String(views.length);
}

dark.addEventListener("change", draw);
draw();
