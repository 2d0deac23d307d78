// Labels of rows take less than half of a chart's place, so that the legend beside them has room.
window.fitLabels = function fit(part, width) {
  for (const [key, value] of Object.entries(part)) {
    if (!value || typeof value !== "object" || key === "data") continue;
    if (key === "axis" && value.labelLimit) value.labelLimit = Math.min(value.labelLimit, 0.45 * width);
    fit(value, width);
  }
  return part;
};
