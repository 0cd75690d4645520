(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const root = document.getElementById("viewer");
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const canvas = part("canvas"), context = canvas.getContext("2d");
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const colours = data.structures.map((s) => rgb(s.colour)), differ = rgb(data.differ);
  const byKey = Object.fromEntries(data.structures.map((s) => [s.key, s.colour]));
  const decisions = new Map();  // place of a case -> {decision, comment}
  const on = { 0: true };  // which layers are drawn
  let order = data.cases.map((_, i) => i), sorted = null;
  let current = -1, slice = 0, frame = 0, image = null, labels = null, loading = 0, playing = 0;

  const load = (source) => new Promise((done) => {
    if (!source) { done(null); return; }
    const picture = new Image();
    picture.onload = () => done(picture);
    picture.onerror = () => done(null);
    picture.src = source;
  });

  const pixels = (picture) => {
    if (!picture) return null;
    const sheet = document.createElement("canvas");
    sheet.width = picture.width; sheet.height = picture.height;
    const c = sheet.getContext("2d", { willReadFrequently: true });
    c.drawImage(picture, 0, 0);
    return { data: c.getImageData(0, 0, picture.width, picture.height).data, width: picture.width };
  };

  const tilesOf = () => current < 0 ? null : data.cases[current].tiles;

  function draw() {
    const tiles = tilesOf();
    canvas.hidden = !tiles;
    for (const name of ["slice", "opacity", "play"]) part(name).disabled = !tiles;
    if (!tiles || !labels) { part("place").textContent = tiles || current < 0 ? "" : data.cases[current].unseen || "The files of this case can't be shown."; return; }
    const { width, height, across, slices, frames } = tiles;
    const n = frame * slices + slice, x0 = (n % across) * width, y0 = Math.floor(n / across) * height;
    canvas.width = width; canvas.height = height;
    canvas.style.aspectRatio = `${width} / ${height * tiles.aspect}`;
    const out = context.createImageData(width, height), alpha = part("opacity").value / 100;
    const shown = tiles.layers.map((_, layer) => layer).filter((layer) => on[layer]);
    const differing = on.differ && tiles.layers.length > 1;
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const place = 4 * (y * width + x), from = 4 * ((y0 + y) * labels.width + x0 + x);
        const grey = image ? image.data[from] : 0;
        let r = grey, g = grey, b = grey;
        for (const layer of shown) {
          const label = labels.data[from + layer];
          if (!label) continue;
          const c = colours[label - 1];
          r += (c[0] - r) * alpha; g += (c[1] - g) * alpha; b += (c[2] - b) * alpha;
        }
        if (differing && labels.data[from] !== labels.data[from + 1]) [r, g, b] = differ;
        out.data[place] = r; out.data[place + 1] = g; out.data[place + 2] = b; out.data[place + 3] = 255;
      }
    }
    context.putImageData(out, 0, 0);
    part("place").textContent = `slice ${slice + 1} of ${slices}` + (frames > 1 ? `, frame ${frame + 1} of ${frames}` : "");
    part("slice").value = slice + 1; part("frame").value = frame + 1;
    drawCurves();
  }

  function drawCurves() {
    const found = current < 0 ? {} : data.cases[current].curves, any = Object.keys(found).length > 0;
    part("curves").hidden = !any;
    if (any) part("curve").replaceChildren(plots.curves(found, byKey, frame, (t) => step(0, t - frame)));
  }

  function drawCohort() {
    const values = current < 0 ? [] : data.cases[current].values;
    part("cohort").replaceChildren(...data.cohort.map((found) => {
      const { name } = found, key = name.split(" ")[0].toLowerCase();
      return plots.distribution(name, found, values[data.columns.indexOf(name)], byKey[key] || "#59636e");
    }));
  }

  function drawMeasures() {
    const rows = current < 0 ? [] : data.cases[current].measures, table = part("measures");
    table.hidden = !rows.length;
    table.replaceChildren(...(rows.length ? [data.measures, ...rows] : []).map((cells, i) => {
      const row = document.createElement("tr");
      cells.forEach((text, j) => {
        const cell = document.createElement(i && j ? "td" : "th");
        cell.textContent = text; row.append(cell);
      });
      return row;
    }));
  }

  function play(start) {
    clearInterval(playing); playing = 0;
    const tiles = tilesOf();
    if (start && tiles && tiles.frames > 1) playing = setInterval(() => step(0, 1), 1000 / Math.max(tiles.frames, 8));
    part("play").textContent = playing ? "stop" : "play"; part("play").setAttribute("aria-pressed", String(Boolean(playing)));
  }

  function step(slices, frames) {
    const tiles = tilesOf();
    if (!tiles) return;
    slice = Math.min(Math.max(slice + slices, 0), tiles.slices - 1);
    frame = (((frame + frames) % tiles.frames) + tiles.frames) % tiles.frames;
    draw();
  }

  async function open(place) {
    const c = data.cases[place], tiles = c.tiles, turn = ++loading;
    play(false);
    current = place; frame = tiles ? tiles.start_frame : 0; slice = tiles ? tiles.start : 0; image = labels = null;
    part("name").textContent = c.name; part("text").textContent = c.text;
    part("verdict").textContent = c.verdict || "no flag"; part("verdict").className = `tag ${c.verdict}`;
    const decided = decisions.get(place) || {};
    part("comment").value = decided.comment || "";
    root.querySelectorAll("[data-decision]").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.decision === decided.decision)));
    part("frames").hidden = !tiles || tiles.frames < 2;
    part("layers").replaceChildren();
    drawMeasures(); drawCohort(); drawCurves();
    if (tiles) {
      part("slice").max = tiles.slices; part("frame").max = tiles.frames;
      const switches = tiles.layers.map((name, layer) => [name, layer]);
      if (tiles.layers.length > 1) switches.push(["where they differ", "differ"]);
      for (const [name, key] of switches) {
        const label = document.createElement("label"), box = document.createElement("input");
        box.type = "checkbox"; box.checked = Boolean(on[key]); box.dataset.layer = key;
        box.onchange = () => { on[key] = box.checked; draw(); };
        label.append(box, ` ${name} `); part("layers").append(label);
      }
    }
    root.querySelectorAll("tbody tr").forEach((r) => r.classList.toggle("open", Number(r.dataset.case) === place));
    const [a, b] = tiles ? await Promise.all([load(tiles.image), load(tiles.labels)]) : [null, null];
    if (turn !== loading) return;  // another case was opened meanwhile
    image = pixels(a); labels = pixels(b);
    draw();
  }

  const shownRows = () => {
    const words = part("filter").value.trim().toLowerCase();
    return order.filter((i) => {
      const c = data.cases[i], decided = decisions.get(i) || {};
      return !words || [c.name, c.verdict, decided.decision || "", decided.comment || ""].some((t) => t.toLowerCase().includes(words));
    });
  };

  function list() {
    const shown = shownRows(), rows = document.createDocumentFragment();
    for (const i of shown) {
      const c = data.cases[i], row = document.createElement("tr");
      row.dataset.case = i; row.className = i === current ? "open" : "";
      const cells = [c.name, c.verdict || "–", ...c.values.map((v) => v === null ? "–" : typeof v === "number" ? v.toFixed(Math.abs(v) < 100 ? 2 : 1) : v),
        (decisions.get(i) || {}).decision || ""];
      cells.forEach((text, j) => {
        const cell = document.createElement(j ? "td" : "th");
        if (j) { cell.textContent = text; } else {
          const button = document.createElement("button");
          button.type = "button"; button.textContent = text; cell.append(button);
        }
        row.append(cell);
      });
      row.onclick = () => open(i);
      rows.append(row);
    }
    part("rows").replaceChildren(rows);
    part("shown").textContent = `${shown.length} of ${data.cases.length} cases`;
  }

  function head() {
    ["case", "verdict", ...data.columns, "your decision"].forEach((name, j) => {
      const cell = document.createElement("th"), button = document.createElement("button");
      button.type = "button"; button.textContent = name; button.title = "sort";
      const value = (i) => { const c = data.cases[i];
        return j === 0 ? c.name : j === 1 ? c.verdict : j <= data.columns.length + 1 ? c.values[j - 2] : (decisions.get(i) || {}).decision || ""; };
      const rank = (v) => v === "∞" ? Infinity : v === "−∞" ? -Infinity : v;
      button.onclick = () => {
        const falling = sorted === j; sorted = falling ? null : j;
        order.sort((a, b) => {
          const x = rank(value(a)), y = rank(value(b));
          if (x === y) return a - b;
          if (x === null || x === "") return 1;  // what is missing comes last, whichever way
          if (y === null || y === "") return -1;
          const less = typeof x === "number" && typeof y === "number" ? x < y : String(x).localeCompare(String(y), undefined, { numeric: true }) < 0;
          return less === falling ? 1 : -1;
        });
        list();
      };
      cell.append(button); part("head").append(cell);
    });
  }

  function decide(change) {
    if (current < 0) return;
    const kept = { ...(decisions.get(current) || {}), ...change };
    if (kept.decision || kept.comment) decisions.set(current, kept); else decisions.delete(current);
    root.querySelectorAll("[data-decision]").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.decision === kept.decision)));
    part("count").textContent = `${decisions.size} of ${data.cases.length} noted`;
    list();
  }

  const toggle = (decision) => decide({ decision: (decisions.get(current) || {}).decision === decision ? "" : decision });

  // a spreadsheet takes what begins so for a formula
  const field = (text) => `"${(/^[=+\-@\t\r]/.test(text) ? "'" : "") + text.replaceAll('"', '""')}"`;
  const review = () => ["case,verdict,decision,comment", ...data.cases.flatMap((c, i) => {
    const d = decisions.get(i);
    return d ? [[c.name, c.verdict, d.decision || "", d.comment || ""].map(field).join(",")] : [];
  })].join("\r\n") + "\r\n";

  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([review()], { type: "text/csv" }));
    link.download = "review.csv"; link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    saved = decisions.size;
  }

  let saved = 0, wheel = 0, touched = null;
  window.addEventListener("beforeunload", (event) => { if (decisions.size > saved) event.preventDefault(); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    wheel += event.deltaY;
    if (Math.abs(wheel) >= 30) { step(Math.sign(wheel), 0); wheel = 0; }
  }, { passive: false });
  canvas.addEventListener("touchstart", (event) => { touched = [event.touches[0].clientX, event.touches[0].clientY]; }, { passive: true });
  canvas.addEventListener("touchmove", (event) => {
    if (!touched) return;
    event.preventDefault();
    const dx = event.touches[0].clientX - touched[0], dy = event.touches[0].clientY - touched[1];
    if (Math.max(Math.abs(dx), Math.abs(dy)) < 24) return;
    if (Math.abs(dy) > Math.abs(dx)) step(dy < 0 ? 1 : -1, 0); else step(0, dx < 0 ? 1 : -1);
    touched = [event.touches[0].clientX, event.touches[0].clientY];
  }, { passive: false });
  part("slice").oninput = () => { slice = part("slice").value - 1; draw(); };
  part("frame").oninput = () => { frame = part("frame").value - 1; draw(); };
  part("opacity").oninput = draw;
  part("filter").oninput = list;
  part("play").onclick = () => play(!playing);
  part("comment").oninput = () => decide({ comment: part("comment").value });
  part("save").onclick = save;
  root.querySelectorAll("[data-decision]").forEach((b) => { b.onclick = () => toggle(b.dataset.decision); });
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || ["text", "search"].includes(event.target.type)) return;
    if (event.key === " " && event.target.matches("button, input")) return;  // presses it
    if (event.target.type === "range" && event.key.startsWith("Arrow")) return;  // the slider's own
    const shown = shownRows(), at = shown.indexOf(current);
    const acts = {
      ArrowUp: () => step(-1, 0), ArrowDown: () => step(1, 0), ArrowLeft: () => step(0, -1), ArrowRight: () => step(0, 1),
      n: () => at + 1 < shown.length && open(shown[at + 1]), p: () => at > 0 && open(shown[at - 1]),
      a: () => toggle("accept"), r: () => toggle("reject"), " ": () => play(!playing),
    };
    if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
  });
  head(); list();
  if (data.cases.length) open(0);
})();
