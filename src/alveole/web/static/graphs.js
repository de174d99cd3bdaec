// Graphs of figures, drawn by uPlot from what the page brings in data-graph. The table beside says the same in words,
// so without this script nothing is missing but the pictures.
"use strict";
(() => {
  const drawn = new Map();
  const language = document.documentElement.lang;
  const binary = language === "fr" ? ["o", "Kio", "Mio", "Gio", "Tio"] : ["B", "KiB", "MiB", "GiB", "TiB"];
  // Lines of bytes stand at round numbers of their units.
  const doubled = Array.from({ length: 50 }, (_, place) => 2 ** place);
  const plain = new Intl.NumberFormat(language, { maximumSignificantDigits: 4 });
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const formats = {
    bytes(value) {
      let place = 0;
      while (Math.abs(value) >= 1000 && place < 4) {
        value /= 1024;
        place += 1;
      }
      return `${new Intl.NumberFormat(language, { maximumSignificantDigits: 3 }).format(value)} ${binary[place]}`;
    },
    share: (value) => `${plain.format(value * 100)} %`,
    ms: (value) => `${plain.format(value)} ms`,
  };
  const said = (unit) => (value) => {
    if (value === null || value === undefined) return "–";
    const known = formats[unit.replace("/s", "")];
    return (known ? known(value) : plain.format(value)) + (unit.endsWith("/s") ? "/s" : "");
  };
  const moments = {
    hour: { hour: "2-digit", minute: "2-digit", hourCycle: "h23" },
    day: { hour: "2-digit", minute: "2-digit", hourCycle: "h23" },
    week: { weekday: "short", day: "numeric" },
    month: { day: "numeric", month: "short" },
    year: { month: "short", year: "2-digit" },
  };

  function draw(place) {
    const given = JSON.parse(place.dataset.graph);
    const say = said(given.unit);
    const short = new Intl.DateTimeFormat(language, moments[given.span]);
    const whole = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" });
    const lines = colour("--alv-line");
    const text = colour("--bs-secondary-color");
    const wall = document.body.classList.contains("wall");
    const axis = { stroke: text, grid: { stroke: lines, width: 1 }, ticks: { stroke: lines, width: 1 } };
    const series = given.series.map((each, number) => ({
      label: each.label,
      stroke: colour(`--graph-${number}`),
      dash: number === 0 ? [] : [[8, 3], [2, 3], [10, 3, 2, 3]][(number - 1) % 3],
      width: wall ? 3 : 2,
      points: { show: false },
      value: (_plot, value) => say(value),
    }));
    place.textContent = "";
    return new window.uPlot({
      width: Math.max(place.clientWidth, 240),
      height: wall ? 240 : 200,
      cursor: { sync: { key: "figures" }, drag: { x: true, y: false } },
      legend: { show: !wall },
      scales: { y: { range: (_plot, _low, high) => [0, given.unit === "share" ? 1.05 : high > 0 ? high * 1.1 : 1] } },
      axes: [
        { ...axis, values: (_plot, splits) => splits.map((at) => short.format(new Date(at * 1000))), space: 70 },
        { ...axis, values: (_plot, splits) => splits.map(say), size: 78, ...(given.unit.startsWith("bytes") ? { incrs: doubled } : {}) },
      ],
      series: [{ label: given.when, value: (_plot, at) => (at === null ? "–" : whole.format(new Date(at * 1000))) }, ...series],
    }, [given.times, ...given.series.map((each) => each.values)], place);
  }

  const sizes = new ResizeObserver((entries) => {
    for (const entry of entries) {
      const plot = drawn.get(entry.target);
      const width = Math.floor(entry.contentRect.width);
      if (plot && width > 0 && width !== plot.width) plot.setSize({ width, height: plot.height });
    }
  });

  function all(again) {
    for (const [place, plot] of drawn) {
      if (again || !place.isConnected) {
        plot.destroy();
        sizes.unobserve(place);
        drawn.delete(place);
      }
    }
    for (const place of document.querySelectorAll("[data-graph]")) {
      if (!drawn.has(place)) {
        drawn.set(place, draw(place));
        sizes.observe(place);
      }
    }
  }

  all(false);
  document.addEventListener("htmx:afterSettle", () => all(false));
  new MutationObserver(() => all(true)).observe(document.documentElement, { attributeFilter: ["data-bs-theme"] });
})();
