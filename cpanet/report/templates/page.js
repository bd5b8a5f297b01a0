"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => Array.from(within.querySelectorAll(selector));
  const pressed = (button) => button.getAttribute("aria-pressed") === "true";
  root.classList.add("js");

  // Best or last epoch.
  const views = all("[data-show]");
  const show = (which) => {
    root.dataset.which = which;
    views.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.show === which)));
    layOut();
  };
  views.forEach((button) => button.addEventListener("click", () => show(button.dataset.show)));

  // Rows: shown or not, in the curves, the intervals and the episodes.
  const toggles = all("[data-toggle]");
  const toggle = (button, on) => {
    button.setAttribute("aria-pressed", String(on));
    all(`[data-row="${button.dataset.toggle}"]`).forEach((element) => element.classList.toggle("off", !on));
  };
  toggles.forEach((button) => button.addEventListener("click", () => toggle(button, !pressed(button))));
  all("[data-all]").forEach((button) =>
    button.addEventListener("click", () => toggles.forEach((other) => toggle(other, button.dataset.all === "true"))));

  // Values under the pointer.
  const names = new Map(toggles.map((button) => [button.dataset.toggle, button.textContent.trim()]));
  all(".canvas").forEach((canvas) => {
    const svg = canvas.querySelector("svg"), cursor = canvas.querySelector(".cursor"), tip = canvas.querySelector(".tip");
    const data = JSON.parse(canvas.querySelector("script").textContent);
    const hide = () => { tip.hidden = true; cursor.style.visibility = "hidden"; };
    const move = (event) => {
      const box = svg.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * 560;
      const visible = all(".curve:not(.off)", svg).map((curve) => curve.dataset.row);
      const points = visible.flatMap((row) => data.rows[row] || []);
      if (!points.length) return hide();
      const epoch = points.reduce((a, b) => Math.abs(b[1] - x) < Math.abs(a[1] - x) ? b : a)[0];
      const lines = visible
        .map((row) => [row, (data.rows[row] || []).find((point) => point[0] === epoch)])
        .filter(([, point]) => point)
        .sort((a, b) => a[1][2] - b[1][2]);
      const at = lines[0][1][1];
      cursor.setAttribute("x1", at);
      cursor.setAttribute("x2", at);
      cursor.style.visibility = "visible";
      tip.replaceChildren(element("b", `epoch ${epoch}`), ...lines.map(([row, point]) => {
        const line = element("div"), dot = element("i");
        dot.className = svg.querySelector(`.curve[data-row="${row}"]`).getAttribute("class").match(/c\d/)[0];
        line.append(dot, element("span", names.get(row) || "all runs"), element("em", number(point, data.unit)));
        return line;
      }));
      tip.hidden = false;
      const share = at / 560;
      tip.style.left = share < 0.5 ? `calc(${100 * share}% + 12px)` : "auto";
      tip.style.right = share < 0.5 ? "auto" : `calc(${100 * (1 - share)}% + 12px)`;
    };
    svg.addEventListener("pointermove", move);
    svg.addEventListener("pointerdown", move);
    svg.addEventListener("pointerleave", hide);
  });
  function number([, , , mean, low, high], unit) {
    const digits = unit ? 1 : 3;
    const spread = high > low ? ` (${low.toFixed(digits)}–${high.toFixed(digits)})` : "";
    return mean.toFixed(digits) + spread;
  }
  function element(name, text = "") {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  }

  // The columns that name a row stay in sight, side by side.
  function layOut() {
    all("table.numbers tr").forEach((row) => {
      let left = 0;
      all("th.label", row).forEach((cell) => {
        cell.style.setProperty("--left", `${left}px`);
        left += cell.offsetWidth;
      });
    });
  }
  addEventListener("resize", layOut);
  show("best");
})();
