// Labels of rows take less than half of a chart's place, so that the legend beside them has room; titles of
// axes below a chart that they are wider than go on in further lines.
window.fitLabels = function fit(part, width, hasRows = JSON.stringify(part).includes('"labelLimit"')) {
  for (const [key, value] of Object.entries(part)) {
    if (!value || typeof value !== "object" || key === "data") continue;
    if (key === "axis" && value.labelLimit) value.labelLimit = Math.min(value.labelLimit, 0.45 * width);
    if (key === "legend" && value.labelLimit) value.labelLimit = Math.min(value.labelLimit, width - 110);
    if (key === "x" && typeof value.title === "string") {
      const most = Math.max(12, ((hasRows ? 0.5 : 0.8) * width) / 6.5); // characters of 11 px
      if (value.title.length > most) value.title = inLines(value.title, most);
    }
    fit(value, width, hasRows);
  }
  return part;
};

// On a phone names in legends are long for their place, and they differ at their ends: they are smaller there,
// legends stand below each other, and end where the rows end: over the labels of rows there is room.
window.fitLegends = function fitLegends(config, spec, width) {
  if (width >= 480) return config;
  const anchor = JSON.stringify(spec).includes('"labelLimit"') ? "end" : "start";
  const legend = { labelFontSize: 8, labelLimit: width - 110, layout: { top: { direction: "vertical", anchor } } };
  return { ...config, legend: { ...config.legend, ...legend } };
};

function inLines(text, most) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (longer.length <= most || !lines.at(-1)) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}
