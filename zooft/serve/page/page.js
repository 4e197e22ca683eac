"use strict";
// Everything that comes from a file or a server is set as text, never as HTML.
const find = (id) => document.getElementById(id);
let token = "", models = [];

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child !== null));
  return made;
}

async function request(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { ...options, headers });
  const text = await answer.text();
  if (!answer.ok) {
    let message = text;
    try { message = JSON.parse(text).error; } catch { /* what isn't JSON is shown as it is */ }
    throw Object.assign(new Error(message || `the server answered ${answer.status}`), { status: answer.status });
  }
  return JSON.parse(text);
}

function showStatus(text, isError = false) {
  const place = find("status");
  place.textContent = text;
  place.className = isError ? "error" : "";
}

const number = (value) => typeof value !== "number" ? String(value)
  : Number.isInteger(value) ? value.toLocaleString("en") : value.toPrecision(4).replace(/\.?0+$/, "");
const percent = (value) => `${(100 * value).toFixed(1)} %`;
const model = () => models[Number(find("model").value)] || models[0];
const address = (about) => `${encodeURIComponent(about.name)}/versions/${about.version}`;

// The model

async function begin() {
  try {
    models = await request("models");
  } catch (error) {
    find("access").hidden = error.status !== 401;
    if (error.status === 401) { showStatus(token ? "This isn't the token." : ""); find("token").focus(); } else showStatus(error.message, true);
    return;
  }
  find("access").hidden = true;
  showStatus("");
  find("model").replaceChildren(...models.map((one, index) =>
    make("option", { value: String(index) }, one.version === "1" ? one.name : `${one.name}, version ${one.version}`)));
  find("choice").hidden = models.length < 2;
  if (models.length) showModel(); else showStatus("No model is loaded.", true);
}

function showModel() {
  const about = model();
  document.title = `${about.name} – zooft`;
  find("title").textContent = about.name;
  find("purpose").textContent = about.description;
  find("zooft").textContent = `zooft ${about.zooft}`;
  find("doubts").hidden = !about.unverified.length;
  find("doubts").textContent = about.unverified.join(" ");
  find("hint").hidden = !about.index_hint;
  find("hint").textContent = about.index_hint;
  find("files").accept = about.series ? ".zip,.dcm,.nii,.gz,application/zip" : "image/*,.zip,application/zip";
  find("about").hidden = false;
  const rows = {
    "Intended use": about.intended_use,
    "Answers": about.labels.map((one) => one.categories.length ? `${one.name}: ${one.categories.join(", ")}` : `${one.name}${one.unit ? ` in ${one.unit}` : ""}`).join("; "),
    "Input": about.ports.map((one) => `${one.name}: ${one.meaning}`).join("; "),
    "Preprocessing": about.preprocessing,
    "Backbone": about.backbone,
    "Weights": [about.weights.kind, about.weights.licence && `licence ${about.weights.licence}`].filter(Boolean).join(", "),
    "Figures": figures(about.metrics),
    "Index": about.index ? `${number(about.index.pictures)} pictures, ${number(about.index.identities)} identities` : "",
    "Runs on": about.provider.replace("ExecutionProvider", ""),
    "SHA-256 of the weights": about.weights_sha256,
  };
  find("card").replaceChildren(...Object.entries(rows).filter(([, text]) => text).map(([name, text]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, make("span", {}, text)))));
  find("metadata").textContent = JSON.stringify(about, null, 2);
  find("list").replaceChildren();
  find("answers").hidden = true;
}

function figures(metrics) {
  const found = [];
  for (const [split, whole] of Object.entries(metrics)) {
    const named = Object.entries(whole.metrics || {}).filter(([, one]) => one && typeof one.value === "number").slice(0, 4);
    if (named.length) found.push(`${split}: ${named.map(([name, one]) => `${name.replaceAll("_", " ")} ${number(one.value)}`).join(", ")}`);
  }
  return found.join("; ");
}

// Answers

async function predict(files) {
  const about = model();
  find("answers").hidden = false;
  for (const file of files) {
    showStatus(`${file.name}: computing …`);
    const start = performance.now();
    try {
      const answer = await request(`predict/${address(about)}?draw=1`, { method: "POST", body: file });
      const seconds = (performance.now() - start) / 1000;
      for (const row of answer.predictions) find("list").prepend(entry(about, answer, row, file, seconds));
      showStatus(`${file.name}: answered in ${number(seconds * 1000 < 1000 ? Math.round(seconds * 1000) : seconds)} ${seconds < 1 ? "ms" : "s"}.`);
    } catch (error) {
      find("list").prepend(make("article", { className: "answer" }, make("div", {}, make("h3", {}, file.name)), make("p", { className: "error" }, error.message)));
      showStatus(`${file.name}: no answer.`, true);
    }
  }
}

function entry(about, answer, given, file, seconds) {
  const { values, ...others } = given;
  const row = values && typeof values === "object" && !Array.isArray(values) ? { ...others, ...values } : given;  // numbers by name
  const key = row.patient ?? row.file ?? row.id, single = row.file && row.file.startsWith("image");
  const name = single ? file.name : String(key);
  const shown = make("div", { className: "shown" });
  if (row.picture) shown.append(make("img", { src: row.picture, alt: `${name}, as the model sees it` }));
  const heading = headline(about, row);
  const words = make("div", {},
    make("h3", {}, heading || name),
    make("p", { className: "caption" }, `${heading ? `${name} · ` : ""}${seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${number(seconds)} s`} from sending to answer`),
    row.error ? make("p", { className: "error" }, row.error) : null,
    bars(about, answer, row), neighbours(about, row), table(about, row));
  if (row.picture && (single || about.series)) words.append(...occlusion(about, file, shown));
  return make("article", { className: "answer" }, shown, words);
}

const isNumbers = (value) => Array.isArray(value) && value.length && value.every((one) => typeof one === "number");
const hidden = new Set(["file", "patient", "id", "picture", "error", "decisive", "probability", "probabilities", "nearest"]);

function headline(about, row) {
  const first = row.nearest?.[0];
  if (first) return first.same === false ? "Not in the index" : `${first.same ? "" : "Nearest: "}${first.identity}`;
  const name = about.labels[0]?.name;
  if (about.labels.length === 1 && name in row && typeof row[name] !== "object") {
    return `${name}: ${number(row[name])}${about.labels[0].unit ? ` ${about.labels[0].unit}` : ""}`;
  }
  return "";
}

// names to probabilities, where the answer has one each
function probabilities(about, answer, row) {
  const given = row.probabilities;
  if (isNumbers(given)) {
    const names = answer.classes || answer.labels || about.labels.flatMap((one) => one.categories.length ? one.categories : [one.name]);
    return given.map((value, index) => [String(names[index] ?? index), value]);
  }
  return given && typeof given === "object" && !Array.isArray(given) ? Object.entries(given).filter(([, value]) => typeof value === "number") : [];
}

function bars(about, answer, row) {
  const named = probabilities(about, answer, row).sort((one, other) => other[1] - one[1]).slice(0, 12);
  if (!named.length) return null;
  const limit = answer.threshold ?? about.fitted.threshold ?? null;
  const limits = answer.thresholds ?? {};
  const positive = answer.classes?.length === 2 ? answer.classes[1] : null;
  const list = make("dl", { className: "bars" });
  named.forEach(([name, value], index) => {
    const bar = make("div", { className: "bar" }), filled = make("i");
    filled.style.width = `${Math.max(0, Math.min(1, value)) * 100}%`;
    bar.append(filled);
    const own = typeof limits === "object" && typeof limits[name] === "number" ? limits[name] : name === positive || !positive ? limit : null;
    if (typeof own === "number") {
      const mark = make("b", { title: `threshold ${percent(own)}` });
      mark.style.left = `${own * 100}%`;
      bar.append(mark);
    }
    list.append(make("dt", { className: index ? "" : "first" }, name), make("dd", {}, bar), make("dd", { className: "number" }, percent(value)));
  });
  const box = make("div", {}, list);
  if (Object.keys(limits).length) box.append(make("p", { className: "caption" }, "Orange lines: the thresholds."));
  else if (typeof limit === "number") box.append(make("p", { className: "caption" }, `Orange line: the threshold${positive ? ` of ${positive}` : ""}, ${percent(limit)}.`));
  return box;
}

function neighbours(about, row) {
  if (!row.nearest?.length) return null;
  const limit = about.index.threshold;
  const line = (one) => make("tr", { className: one.same ? "same" : "" },
    make("th", { scope: "row" }, one.identity, one.file === one.identity ? null : make("span", { className: "caption" }, one.file)),
    make("td", {}, one.distance.toFixed(4)), make("td", {}, one.same === null ? "not known" : one.same ? "same" : "other"));
  const names = ["nearest", "distance", "same or other"].map((name) => make("th", { scope: "col" }, name));
  const rule = typeof limit === "number" ? `The same up to a distance of ${limit.toFixed(4)}.` : "The model has no threshold: no distance is known up to which two are the same.";
  return make("div", {}, make("table", { className: "neighbours" }, make("thead", {}, make("tr", {}, ...names)),
    make("tbody", {}, ...row.nearest.map(line))), make("p", { className: "caption" }, rule));
}

function table(about, row) {
  const units = Object.fromEntries(about.labels.map((one) => [one.name, one.unit]));
  const list = make("dl", { className: "figures" });
  for (const [name, value] of Object.entries(row)) {
    if (hidden.has(name) || (about.labels.length === 1 && name === about.labels[0].name && typeof value !== "object")) continue;
    list.append(make("div", {}, make("dt", {}, name), make("dd", {}, inWords(value) + (units[name] ? ` ${units[name]}` : ""))));
  }
  return list.children.length ? list : null;
}

function inWords(value, depth = 0) {
  if (value === null || value === "") return "–";
  if (Array.isArray(value)) return value.length > 16 && typeof value[0] === "number" ? `${value.length} numbers` : value.length ? value.slice(0, 16).map((one) => inWords(one, depth + 1)).join(depth ? ", " : "; ") + (value.length > 16 ? "; …" : "") : "none";
  if (typeof value === "object") return Object.entries(value).map(([name, one]) => `${name} ${inWords(one, depth + 1)}`).join(", ");
  return number(value);
}

// Occlusion

function occlusion(about, file, shown) {
  const note = make("p", { className: "caption", role: "status" });
  const button = make("button", { type: "button" }, "Show what matters");
  button.addEventListener("click", async () => {
    const old = shown.querySelector("canvas");
    if (old) {
      old.hidden = !old.hidden;
      shown.classList.toggle("mapped", !old.hidden);
      button.textContent = old.hidden ? "Show what matters" : "Hide what matters";
      return;
    }
    button.disabled = true;
    note.textContent = `Covering ${about.grid * about.grid} places, one after the other …`;
    try {
      const map = await request(`occlusion/${address(about)}`, { method: "POST", body: file });
      shown.querySelector("img").src = map.picture;
      shown.append(drawMap(map.changes));
      shown.classList.add("mapped");
      note.textContent = `Where a place is covered: ${map.of}. Stronger orange: more, at most ${number(Math.max(...map.changes.flat()))}.`;
      button.textContent = "Hide what matters";
    } catch (error) {
      note.textContent = error.message;
    }
    button.disabled = false;
  });
  return [button, note];
}

function drawMap(changes) {
  const canvas = make("canvas", { width: changes[0].length, height: changes.length, role: "img", ariaLabel: "Occlusion map" });
  const context = canvas.getContext("2d"), all = changes.flat();
  const least = Math.max(0, Math.min(...all)), most = Math.max(...all, least + 1e-9);
  changes.forEach((row, y) => row.forEach((value, x) => {
    context.fillStyle = `rgba(255, 122, 20, ${Math.max(0, value - least) / (most - least)})`;
    context.fillRect(x, y, 1, 1);
  }));
  return canvas;
}

// Events

find("files").addEventListener("change", (event) => { predict([...event.target.files]); });
find("model").addEventListener("change", showModel);
find("access").addEventListener("submit", (event) => { event.preventDefault(); token = find("token").value; begin(); });
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    find("drop").classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop") predict([...event.dataTransfer.files]);
  });
}
begin();
