"use strict";
// Loss curves as SVG: `lossCurves(data)(place, numbers, axes, folded)` draws those of some records into an element.
const lossCurves = (data) => {
  const byNumber = new Map(data.records.map((record) => [record.number, record]));
  const SVG = "http://www.w3.org/2000/svg";
  const make = (name, attributes, text) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const plain = (value) => {
    for (const [size, word] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
      if (value >= size) return `${Number((value / size).toPrecision(3))}${word}`;
    }
    return String(Number(value.toPrecision(3)));
  };
  const AXES = { step: "steps", seconds: "seconds", tokens: "tokens" };
  const value = {
    step: (point) => point[0],
    seconds: (point, one) => (point[2] === null ? NaN : point[2] * one.share), // fewer GPUs: projected to eight
    tokens: (point, one) => (one.tokens === null ? NaN : point[0] * one.tokens),
  };

  const seriesOf = (number) => {
    const { share, others, tokens_per_step: tokens } = byNumber.get(number);
    const published = data.curves[number];
    const own = (data.replays[number] || []).map((run) => ({ ...run, name: `${number} ${run.fidelity}` }));
    return [...(published ? [{ name: number, points: published, tokens, share, others }] : []), ...own];
  };
  const niceTicks = (low, high, count) => {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
    const ticks = [];
    for (let tick = Math.ceil(low / step) * step; tick <= high + step / 1e6; tick += step) ticks.push(Number(tick.toPrecision(12)));
    return ticks;
  };

  const drawOne = (series, axis) => {
    const lines = series
      .map((one, index) => ({
        name: axis === "seconds" && one.share !== 1 ? `${one.name} × ${8 * one.share}/8` : one.name,
        index: index % 4,
        xy: one.points.map((point) => [value[axis](point, one), point[1]]).filter(([x, y]) => x >= 0 && Number.isFinite(y)),
      }))
      .filter((line) => line.xy.length > 1);
    if (!lines.length) return null;
    const right = 14 + 7.5 * Math.max(...lines.map((line) => line.name.length));
    const [width, height, left, top, bottom] = [480, 270, 40, 12, 40];
    const ends = lines.map((line) => line.xy[line.xy.length - 1]);
    const toy = series.every((one) => one.fidelity === "smoke");
    const lowest = Math.min(...lines.flatMap((line) => line.xy.map(([, y]) => y)));
    const low = (toy ? lowest : Math.min(data.target, lowest)) - 0.05;
    const first = Math.max(...lines.map((line) => line.xy[0][1]));
    const high = toy ? first : Math.min(first, Math.max(...ends.map(([, y]) => y)) + 1.3);
    const beyond = axis === "seconds" ? series.flatMap((one) => (one.others || []).map(([seconds]) => seconds)) : [];
    const most = Math.max(...ends.map(([x]) => x), ...beyond);
    const x = (v) => left + (v / most) * (width - left - right);
    const y = (v) => top + ((high - Math.min(v, high)) / (high - low)) * (height - top - bottom);
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    svg.append(make("title", {}, `Validation loss against ${AXES[axis]}: ${lines.map((line) => line.name).join(", ")}`));
    for (const tick of niceTicks(low, high, 5)) {
      svg.append(make("line", { class: "axis", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }));
      svg.append(make("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, tick.toFixed(1)));
    }
    for (const tick of niceTicks(0, most, 4)) {
      svg.append(make("text", { x: x(tick), y: height - bottom + 18, "text-anchor": "middle" }, plain(tick)));
    }
    svg.append(make("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, AXES[axis]));
    if (low < data.target) svg.append(make("line", { class: "goal", x1: left, x2: width - right, y1: y(data.target), y2: y(data.target) }));
    const others = axis === "seconds" ? series.flatMap((one) => one.others || []) : [];
    lines.forEach((line) => {
      line.drawn = line.xy.filter(([, loss]) => loss <= high).map(([a, b]) => [x(a), y(b)]);
      const points = line.drawn.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" ");
      svg.append(make("polyline", { class: `line s${line.index}`, points }));
    });
    const frame = [left, top - 4, width, height - bottom];
    const dots = others.map(([seconds]) => [x(seconds) - 7, y(data.target) - 7, x(seconds) + 7, y(data.target) + 7]);
    for (const { line, at, from } of placeNames(lines, ends.map(([a, b]) => [x(a), y(b)]), frame, dots)) {
      if (from) svg.append(make("line", { class: "leader", x1: from[0], y1: from[1], x2: at[0] - 2, y2: at[1] - 4 }));
      svg.append(make("text", { class: "name", x: at[0], y: at[1] }, line.name));
    }
    for (const [seconds, source] of others) {
      const circle = make("circle", { class: "others", cx: x(seconds), cy: y(data.target), r: 5 });
      circle.append(make("title", {}, `${plain(seconds)} s, as timed by ${source}`));
      svg.append(circle);
    }
    return svg;
  };

  // A name stands at the end of its line, or as near to it as it covers no other name and, if possible, no line.
  const placeNames = (lines, ends, [x0, y0, x1, y1], taken) => {
    const boxes = [...taken];
    const overlap = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
    const points = lines.flatMap((line) => line.drawn.slice(1).flatMap(([bx, by], index) => {
      const [ax, ay] = line.drawn[index];
      const count = Math.ceil(Math.hypot(bx - ax, by - ay) / 4) || 1;
      return Array.from({ length: count }, (_, k) => [ax + (bx - ax) * k / count, ay + (by - ay) * k / count]);
    }));
    const order = lines.map((line, index) => ({ line, end: ends[index] })).sort((a, b) => a.end[1] - b.end[1]);
    return order.map(({ line, end }) => {
      const wide = 7.5 * line.name.length;
      let best = null;
      for (let row = -16; row <= 16; row += 1) {
        for (const across of [end[0] + 5, end[0] - wide / 2, end[0] - wide - 5]) {
          const level = end[1] + 4 + 7 * row;
          const box = [across - 3, level - 11, across + wide, level + 3];
          if (box[0] < x0 || box[1] < y0 || box[2] > x1 + 1 || box[3] > y1 || boxes.some((other) => overlap(box, other))) continue;
          const hit = points.filter(([a, b]) => a > box[0] && a < box[2] && b > box[1] && b < box[3]).length;
          const cost = 7 * Math.abs(row) + 4 * hit + (across > end[0] ? 0 : 12);
          if (best === null || cost < best.cost) best = { cost, box, at: [across, level], far: Math.abs(row) > 2 };
        }
      }
      if (best === null) return null;
      boxes.push(best.box);
      return { line, at: best.at, from: best.far ? end : null };
    }).filter(Boolean);
  };

  // Losses on one text and one schedule belong together; those on another, and those of toys, have scales of their own.
  const KINDS = [
    ["", ({ fidelity }) => !fidelity || ["official", "same-batch"].includes(fidelity)],
    ["Own replays on another text or schedule: their losses are no measure of the record’s",
      ({ fidelity }) => fidelity && !["official", "same-batch", "smoke"].includes(fidelity)],
    ["Smoke replays: a toy’s loss", ({ fidelity }) => fidelity === "smoke"],
  ];
  const hintOf = (text, name = "p") => {
    const element = document.createElement(name);
    element.className = "hint";
    element.textContent = text;
    return element;
  };
  const drawCurves = (place, numbers, axes, folded = false) => {
    const series = numbers.filter((number) => byNumber.has(number)).flatMap(seriesOf);
    place.replaceChildren();
    for (const [words, belongs] of KINDS) {
      const group = series.filter(belongs);
      const drawn = (words.startsWith("Smoke") ? ["step"] : axes).map((axis) => drawOne(group, axis)).filter(Boolean);
      if (!drawn.length) continue;
      if (!words) {
        place.append(...drawn);
        if (group.some((one) => (one.others || []).length) && axes.includes("seconds")) {
          place.append(hintOf("Hollow points: the time that other people measured for the record on their own machines."));
        }
      } else if (folded) {
        const details = document.createElement("details");
        const inside = document.createElement("div");
        inside.className = "curves";
        inside.append(...drawn);
        details.append(hintOf(words, "summary"), inside);
        place.append(details);
      } else {
        place.append(hintOf(`${words}.`), ...drawn);
      }
    }
  };
  return drawCurves;
};
