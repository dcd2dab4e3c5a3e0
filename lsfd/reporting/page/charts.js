
// Curves over iterations, and PSNR against time. Each chart is drawn anew for every width, so that
// its text keeps its size. A chart's range input is its cursor: by keyboard, or by pointer.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const COLOURS = 7;
  const DASHES = 4;

  const add = (parent, name, attributes = {}, text = "") => {
    const made = document.createElementNS(parent.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    parent.append(made);
    return made;
  };

  const colour = (run) => `run${run % COLOURS}`;
  const dash = (run) => `dash${Math.floor(run / COLOURS) % DASHES}`;
  const short = (value) => (Math.abs(value) >= 1000 ? grouped(Math.round(value)) : value.toPrecision(3));
  const psnr = (value) => value.toFixed(2);
  const counted = (value) => (value >= 1000 ? `${Number((value / 1000).toPrecision(4))}k` : String(value));
  const grouped = (value) => value.toLocaleString("en");

  // Round numbers between low and high: about so many, 1, 2 or 5 times a power of ten apart.
  const ticks = (low, high, count) => {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((factor) => factor * power >= 0.75 * rough) * power;
    const found = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * step; n++) {
      found.push(Number((n * step).toPrecision(12)));
    }
    return found;
  };

  const logTicks = (low, high, count) => {
    const choices = [[1], [1, 3], [1, 2, 5], [1, 2, 3, 4, 5, 6, 7, 8, 9]].map((factors) => {
      const found = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
        for (const factor of factors) found.push(Number(`${factor}e${power}`));
      }
      return found.filter((value) => value >= low && value <= high);
    });
    return choices.find((found) => found.length >= Math.min(count, 3)) ?? ticks(low, high, count);
  };

  // Numbers as text, all with as many decimals as one of them needs.
  const alike = (values) => {
    const texts = values.map((value) => String(Number(value.toPrecision(6))));
    if (texts.some((text) => text.includes("e")) || Math.max(...values) >= 100 * Math.min(...values)) return texts;
    const decimals = Math.max(...texts.map((text) => (text.split(".")[1] ?? "").length), 0);
    return values.map((value) => value.toFixed(decimals));
  };

  // A map from numbers to pixels.
  const axis = (low, high, from, to, log) => {
    const place = log ? Math.log : (value) => value;
    return (value) => from + ((place(value) - place(low)) / (place(high) - place(low))) * (to - from);
  };

  const widened = (low, high, log) => {
    if (log) {
      const factor = Math.max(high / low, 1.2) ** 0.06;
      return [low / factor, high * factor];
    }
    const margin = 0.06 * (high - low) || Math.abs(high) * 0.05 || 1;
    return [low - margin, high + margin];
  };

  // Axes, grid and labels; returns where the inner area is and its maps to pixels.
  const frame = (svg, width, height, x, y, bottom) => {
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    const top = 8;
    const base = height - bottom;
    const yTicks = (y.log ? logTicks : ticks)(...y.range, 4);
    const labels = alike(yTicks);
    const left = 8 + 6.6 * Math.max(...labels.map((label) => label.length), 1);
    const right = width - 12;
    const toX = axis(...x.range, left, right, x.log);
    const toY = axis(...y.range, base, top, y.log);
    yTicks.forEach((value, index) => {
      add(svg, "line", { class: "grid", x1: left, x2: right, y1: toY(value), y2: toY(value) });
      add(svg, "text", { x: left - 6, y: toY(value) + 4, "text-anchor": "end" }, labels[index]);
    });
    const room = Math.max(2, Math.floor((right - left) / 60));
    for (const value of (x.log ? logTicks : ticks)(...x.range, room)) {
      add(svg, "line", { class: "axis", x1: toX(value), x2: toX(value), y1: base, y2: base + 4 });
      add(svg, "text", { x: toX(value), y: base + 16, "text-anchor": "middle" }, x.format(value));
    }
    add(svg, "line", { class: "axis", x1: left, x2: right, y1: base, y2: base });
    return { left, right, top, base, toX, toY };
  };

  const nearest = (values, wanted) => {
    let best = 0;
    values.forEach((value, index) => {
      if (Math.abs(value - wanted) < Math.abs(values[best] - wanted)) best = index;
    });
    return best;
  };

  // Joins a chart's cursor to what shows it: `show(index)`, and `show(null)` when nobody looks.
  const attend = (plot, cursor, indexAt, show) => {
    const leave = () => {
      if (document.activeElement !== cursor) show(null);
    };
    const point = (event) => {
      const bounds = plot.getBoundingClientRect();
      cursor.value = indexAt(event.clientX - bounds.left, event.clientY - bounds.top);
      show(Number(cursor.value));
    };
    plot.addEventListener("pointermove", point);
    plot.addEventListener("pointerdown", point);
    plot.addEventListener("pointerleave", leave);
    cursor.addEventListener("input", () => show(Number(cursor.value)));
    cursor.addEventListener("focus", () => show(Number(cursor.value)));
    cursor.addEventListener("blur", () => show(null));
  };

  const redrawn = (plot, draw) => {
    let width = 0;
    new ResizeObserver(() => {
      if (plot.clientWidth === width || !plot.clientWidth) return;
      width = plot.clientWidth;
      draw(width);
    }).observe(plot);
  };

  // Curves

  const path = (xs, ys, toX, toY, log) => {
    let text = "";
    let joined = false;
    xs.forEach((x, index) => {
      const shown = !log || ys[index] > 0;
      if (shown) text += `${joined ? "L" : "M"}${toX(x).toFixed(1)} ${toY(ys[index]).toFixed(1)}`;
      joined = shown;
    });
    return text;
  };

  const drawCurves = (svg, panel, width) => {
    const xs = panel.lines.flatMap((line) => line.x);
    const sides = [0, Math.max(...xs, 1)];
    const x = { range: sides, log: false, format: counted };
    const y = { range: widened(...panel.range, panel.log), log: panel.log };
    const area = frame(svg, width, 190, x, y, 22);
    const { left, right, top, base, toX, toY } = area;
    const inner = add(svg, "svg", { x: 0, y: top - 4, width: right + 6, height: base - top + 4 });
    const down = (value) => toY(value) - top + 4;
    for (const { value, side } of panel.references) {
      const height = { y1: down(value), y2: down(value) };
      if (!side) add(inner, "line", { class: "reference", x1: left, x2: right, ...height });
    }
    panel.lines.forEach((line) => {
      const look = `${colour(line.run)} ${dash(line.run)}`;
      const raw = path(line.x, line.y, toX, down, panel.log);
      if (line.smooth) {
        add(inner, "path", { class: `raw ${look}`, d: raw });
        add(inner, "path", { class: `curve ${look}`, d: path(line.x, line.smooth, toX, down, panel.log) });
      } else {
        add(inner, "path", { class: `curve ${look}`, d: raw });
      }
      if (line.x.length < 10) drawDots(inner, line, toX, down, panel.log);
    });
    return { ...area, guide: add(svg, "g") };
  };

  const drawDots = (inner, line, toX, toY, log) => {
    line.x.forEach((x, index) => {
      if (log && line.y[index] <= 0) return;
      add(inner, "circle", { class: `dot ${colour(line.run)}`, cx: toX(x), cy: toY(line.y[index]), r: 3.5 });
    });
  };

  const curves = (figure) => {
    const panel = data.panels[Number(figure.dataset.panel)];
    const [plot, svg, cursor, at] = ["plot", "svg", "cursor", "at"].map((name) =>
      figure.querySelector(name === "svg" ? "svg" : `.${name}`));
    const format = panel.kind === "psnr" ? psnr : short;
    const iterations = [...new Set(panel.lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    const values = panel.lines.map((_, index) => figure.querySelector(`[data-line="${index}"] b`));
    let area = null;
    let chosen = null;
    cursor.max = iterations.length - 1;
    cursor.value = cursor.max;

    const show = (index) => {
      chosen = index;
      if (area) area.guide.replaceChildren();
      at.textContent = index === null ? "" : `iteration ${grouped(iterations[index])}`;
      if (area && index !== null) {
        const x = area.toX(iterations[index]);
        add(area.guide, "line", { class: "guide", x1: x, x2: x, y1: area.top, y2: area.base });
      }
      const texts = panel.lines.map((line, number) => {
        const ys = line.smooth ?? line.y;
        const position = index === null ? ys.length - 1 : nearest(line.x, iterations[index]);
        values[number].textContent = format(ys[position]);
        const y = area?.toY(ys[position]);
        if (index !== null && area && y >= area.top - 4 && y <= area.base) {
          const place = { cx: area.toX(line.x[position]), cy: y, r: 4 };
          add(area.guide, "circle", { class: `dot ${colour(line.run)}`, ...place });
        }
        return `${data.runs[line.run]} ${format(ys[position])}`;
      });
      const last = iterations[index ?? iterations.length - 1];
      cursor.setAttribute("aria-valuetext", `iteration ${last}: ${texts.join(", ")}`);
    };
    const indexAt = (x) => nearest(iterations.map(area.toX), x);
    redrawn(plot, (width) => {
      area = drawCurves(svg, panel, width);
      show(chosen);
    });
    attend(plot, cursor, indexAt, show);
  };

  // PSNR against time

  const overlaps = (one, other) =>
    one.x < other.x + other.width && other.x < one.x + one.width &&
    one.y < other.y + other.height && other.y < one.y + one.height;

  // Puts each name beside its point; where there is no room, or another point so near that the name
  // might be taken for its, the cursor has to tell.
  const label = (svg, points, area, width) => {
    const taken = points.map(({ x, y }) => ({ x: x - 7, y: y - 7, width: 14, height: 14 }));
    const places = [
      [11, 4, "start"], [-11, 4, "end"], [0, -12, "middle"], [0, 21, "middle"],
      [9, -9, "start"], [9, 17, "start"], [-9, -9, "end"], [-9, 17, "end"],
    ];
    const alone = (point) =>
      points.every((other) => other === point || Math.hypot(other.x - point.x, other.y - point.y) > 13);
    for (const point of points.filter(alone)) {
      const text = add(svg, "text", { class: "label" }, point.name);
      const fits = places.some(([right, down, anchor]) => {
        text.setAttribute("x", point.x + right);
        text.setAttribute("y", point.y + down);
        text.setAttribute("text-anchor", anchor);
        const box = text.getBBox();
        const inside = box.x >= area.left && box.x + box.width <= width && box.y >= 0 &&
          box.y + box.height <= area.base;
        if (!inside || taken.some((other) => overlaps(box, other))) return false;
        taken.push(box);
        return true;
      });
      if (!fits) text.remove();
    }
  };

  const drawScatter = (svg, points, width) => {
    const times = points.map((point) => point.milliseconds);
    const scores = points.map((point) => point.score);
    const height = Math.min(360, Math.max(240, width * 0.5));
    const spread = (values, share) => [Math.min(...values) / share, Math.max(...values) * share];
    const x = { range: spread(times, 1.5), log: true, format: (value) => grouped(value) };
    const low = Math.min(...scores);
    const high = Math.max(...scores);
    const margin = Math.max(0.12 * (high - low), 0.05);
    const y = { range: [low - margin, high + margin], log: false };
    const area = frame(svg, width, height, x, y, 40);
    const middle = (area.left + area.right) / 2;
    const title = width < 420 ? "ms for a megapixel of output" : "milliseconds for a megapixel of output";
    add(svg, "text", { x: middle, y: height - 4, "text-anchor": "middle" }, `${title} (logarithmic)`);
    const placed = points.map((point) => ({ ...point, x: area.toX(point.milliseconds), y: area.toY(point.score) }));
    for (const point of placed) {
      const place = { cx: point.x, cy: point.y, r: point.role === "student" ? 5.5 : 5 };
      const look = point.run === null ? "ring neutral" : `dot ${colour(point.run)}`;
      add(svg, "circle", { class: look, ...place });
    }
    label(svg, placed, area, width);
    return { placed, guide: add(svg, "g") };
  };

  const scatter = (figure) => {
    const [plot, cursor, at] = ["plot", "cursor", "at"].map((name) => figure.querySelector(`.${name}`));
    const svg = figure.querySelector("svg");
    const select = figure.querySelector("select");
    let drawn = null;
    let chosen = null;

    const points = () =>
      data.latency
        .filter((point) => select.value in point.psnr)
        .map((point) => ({ ...point, score: point.psnr[select.value] }))
        .sort((one, other) => one.milliseconds - other.milliseconds);

    const show = (index) => {
      chosen = index;
      const all = points();
      const point = all[index ?? 0];
      const text = `${point.name}: ${psnr(point.score)} dB, ${short(point.milliseconds)} ms`;
      at.textContent = index === null ? "" : text;
      cursor.setAttribute("aria-valuetext", text);
      if (!drawn) return;
      drawn.guide.replaceChildren();
      if (index !== null) {
        const { x, y } = drawn.placed[index];
        add(drawn.guide, "circle", { class: "chosen", cx: x, cy: y, r: 9 });
      }
    };
    const draw = (width) => {
      drawn = drawScatter(svg, points(), width);
      cursor.max = drawn.placed.length - 1;
      show(chosen);
    };
    const indexAt = (x, y) => nearest(drawn.placed.map((point) => Math.hypot(point.x - x, point.y - y)), 0);
    redrawn(plot, draw);
    select.addEventListener("change", () => {
      chosen = null;
      draw(plot.clientWidth);
    });
    attend(plot, cursor, indexAt, show);
  };

  for (const figure of document.querySelectorAll("[data-panel]")) curves(figure);
  const figure = document.getElementById("scatter");
  if (figure) scatter(figure);
})();
