// The pointer over a chart: a line at the nearest moment, and the values there. Everything else is drawn already.
"use strict";

for (const figure of document.querySelectorAll("figure.chart")) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const plot = figure.querySelector(".plot");
  const svg = plot.querySelector("svg");
  const cross = svg.querySelector(".cross");
  const tip = plot.querySelector(".tip");
  const moments = [...new Set(data.series.flatMap((series) => series.points.map(([x]) => x)))].sort((a, b) => a - b);
  const values = data.series.map((series) => new Map(series.points));

  const place = (x) => data.left + ((data.right - data.left) * x) / data.max;

  const hide = () => {
    tip.hidden = true;
    cross.setAttribute("x1", -9);
    cross.setAttribute("x2", -9);
  };

  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const scale = data.width / box.width;
    const x = (((event.clientX - box.left) * scale - data.left) / (data.right - data.left)) * data.max;
    if (!moments.length || x < -data.max * 0.02 || x > data.max * 1.02) {
      hide();
      return;
    }
    const nearest = moments.reduce((best, moment) => (Math.abs(moment - x) < Math.abs(best - x) ? moment : best));
    tip.replaceChildren();
    const head = document.createElement("b");
    const label = data.labels[moments.indexOf(nearest)];
    head.textContent = label ?? `${Number(nearest.toFixed(1))} s`;
    tip.append(head);
    data.series.forEach((series, index) => {
      const value = values[index].get(nearest);
      if (value === undefined) return;
      const row = document.createElement("span");
      const dot = document.createElement("i");
      dot.style.background = `var(--${series.colour})`;
      const name = document.createElement("em");
      name.textContent = series.name;
      const text = document.createElement("strong");
      text.textContent = value;
      row.append(dot, name, text);
      tip.append(row);
    });
    tip.hidden = false;
    const at = place(nearest);
    cross.setAttribute("x1", at);
    cross.setAttribute("x2", at);
    const left = at / scale;
    const flip = left + tip.offsetWidth + 24 > box.width;
    tip.style.left = `${flip ? left - tip.offsetWidth - 12 : left + 12}px`;
  });
}

document.querySelector("#theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(button.previousElementSibling.textContent);
      button.textContent = "copied";
    } catch {
      // Some browsers give no clipboard to a file; the text can be marked by hand.
      getSelection().selectAllChildren(button.previousElementSibling);
    }
  });
}
