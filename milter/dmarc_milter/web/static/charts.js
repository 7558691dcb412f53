/* Draws every <canvas data-chart> as stacked bars, in the page's own colours. The table beside each chart holds the same figures. */
"use strict";
document.querySelectorAll("canvas[data-chart]").forEach((canvas) => {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue("--" + name.replaceAll(" ", "-")).trim() || style.getPropertyValue("--accent").trim();
  const data = JSON.parse(canvas.dataset.chart);
  data.datasets.forEach((set) => { set.backgroundColor = colour(set.label); });
  const text = colour("text");
  const grid = colour("line");
  new Chart(canvas, {
    type: "bar",
    data,
    options: {
      animation: false,
      maintainAspectRatio: false,
      plugins: { legend: { labels: { color: text } } },
      scales: {
        x: { stacked: true, ticks: { color: text }, grid: { color: grid } },
        y: { stacked: true, beginAtZero: true, ticks: { color: text, precision: 0 }, grid: { color: grid } },
      },
    },
  });
});
