// Small plots as SVG: where a case lies in its cohort, and its volumes over the heartbeat.
const plots = (() => {
  "use strict";
  const W = 200, H = 84, BASE = 64;
  const make = (kind, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", kind);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const short = (x) => x === 0 ? "0" : Math.abs(x) >= 100 ? String(Math.round(x)) : Math.abs(x) >= 10 ? x.toFixed(1) : x.toFixed(2);
  const frame = (width, height, label) => make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });

  // counts in bins, what lies above them at the right end, and a line where the case is
  function distribution(name, found, value, colour) {
    const { low, high, counts, beyond } = found, bins = counts.length, room = beyond ? W - 22 : W;
    const most = Math.max(...counts, beyond, 1), width = room / bins;
    const infinite = value === "∞", known = typeof value === "number" || infinite;
    const svg = frame(W, H, `${name}: ${known ? `this case has ${infinite ? "∞" : short(value)}` : "not known of this case"}; all lie from ${short(low)} to ${short(high)}${beyond ? `, ${beyond} above` : ""}`);
    const bar = (x, w, count) => count && svg.append(make("rect", { x, y: BASE - 44 * count / most, width: w, height: 44 * count / most, fill: colour, opacity: .8 }));
    svg.append(make("text", { x: 0, y: 12, class: "name" }, name));
    svg.append(make("text", { x: W, y: 12, "text-anchor": "end" }, known ? (infinite ? "∞" : short(value)) : "–"));
    counts.forEach((count, i) => bar(i * width, Math.max(width - 1, .5), count));
    if (beyond) bar(W - 14, 14, beyond);
    svg.append(make("line", { x1: 0, y1: BASE, x2: room, y2: BASE, class: "axis" }));
    svg.append(make("text", { x: 0, y: H - 5 }, short(low)));
    svg.append(make("text", { x: W, y: H - 5, "text-anchor": "end" }, beyond ? `${short(high)} and more` : short(high)));
    if (known) {
      const above = infinite || value > high;
      const x = above ? W - 7 : Math.min(Math.max((value - low) / (high - low), 0), 1) * room;
      svg.append(make("line", { x1: x, y1: 17, x2: x, y2: BASE + 3, class: "mark" }));
    }
    return svg;
  }

  // a line per structure over the frames; a click on it goes to a frame
  function curves(found, colours, at, go) {
    const width = 360, height = 150, left = 34, right = 6, top = 8, bottom = 20;
    const every = Object.values(found).flat().filter((v) => v !== null), n = Math.max(...Object.values(found).map((c) => c.length));
    const high = Math.max(...every, 1), x = (t) => left + (width - left - right) * (n < 2 ? .5 : t / (n - 1));
    const y = (v) => height - bottom - (height - top - bottom) * v / high;
    const svg = frame(width, height, `volumes over ${n} frames, up to ${short(high)} ml`);
    for (const v of [0, high / 2, high]) {
      svg.append(make("line", { x1: left, y1: y(v), x2: width - right, y2: y(v), class: "grid" }));
      svg.append(make("text", { x: left - 4, y: y(v) + 4, "text-anchor": "end" }, short(Math.round(v))));
    }
    svg.append(make("text", { x: left, y: height - 5 }, "frame 1"), make("text", { x: width - right, y: height - 5, "text-anchor": "end" }, String(n)));
    for (const [key, curve] of Object.entries(found)) {
      let path = "", pen = "M";
      curve.forEach((v, t) => { if (v === null) { pen = "M"; } else { path += `${pen}${x(t).toFixed(1)} ${y(v).toFixed(1)}`; pen = "L"; } });
      svg.append(make("path", { d: path, fill: "none", stroke: colours[key], "stroke-width": 2, "data-curve": key }));
    }
    svg.append(make("line", { x1: x(at), y1: top, x2: x(at), y2: height - bottom, class: "mark" }));
    svg.addEventListener("click", (event) => {
      const box = svg.getBoundingClientRect(), place = (event.clientX - box.left) / box.width * width;
      go(Math.min(Math.max(Math.round((place - left) / (width - left - right) * (n - 1)), 0), n - 1));
    });
    return svg;
  }
  return { distribution, curves };
})();
