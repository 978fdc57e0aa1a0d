"use strict";
// Keeps the facts of the page true, and runs queries. The server writes the facts; this only puts
// newer ones in the place of older ones.

const RELOAD_MS = 30_000; // ages grow although nothing happens
const AGAIN_MS = 2_000;
const TOKEN = "martd-token";

const byId = (id) => document.getElementById(id);
const token = () => sessionStorage.getItem(TOKEN);
const headers = (more = {}) => (token() ? { Authorization: `Bearer ${token()}`, ...more } : more);

function element(name, content, className) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...[content ?? []].flat());
  return made;
}

// As the server counts.
function ago(seconds) {
  const word = seconds < 0 ? "from now" : "ago";
  const past = Math.abs(seconds);
  const units = [[172800, 86400, "day"], [3600, 3600, "hour"], [60, 60, "minute"], [5, 1, "second"]];
  const unit = units.find(([from]) => past >= from);
  if (!unit) return "just now";
  const count = Math.floor(past / unit[1]);
  return `${count} ${unit[2]}${count === 1 ? "" : "s"} ${word}`;
}

function tick() {
  for (const time of document.querySelectorAll("#facts time")) {
    const text = ago(Math.trunc((Date.now() - Date.parse(time.dateTime)) / 1000));
    if (time.textContent !== text) time.textContent = text;
  }
}

function say(text, on) {
  const live = byId("live");
  if (live.textContent !== text) live.textContent = text;
  live.classList.toggle("on", on);
}

/** Takes the page's newest facts; with a token for the first time, the whole page. */
async function load() {
  const answer = await fetch("/", { headers: headers() });
  if (!answer.ok) throw new Error(String(answer.status));
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const facts = page.getElementById("facts");
  document.title = page.title;
  if (facts && byId("facts")) {
    const scrolled = document.querySelector(".scroll")?.scrollLeft;
    const open = new Set([...document.querySelectorAll("details[data-mart][open]")].map((d) => d.dataset.mart));
    byId("facts").replaceChildren(...facts.childNodes);
    for (const details of document.querySelectorAll("details[data-mart]")) {
      details.open = open.has(details.dataset.mart);
    }
    const table = document.querySelector(".scroll");
    if (table && scrolled) table.scrollLeft = scrolled;
  } else {
    document.querySelector("main").replaceChildren(...page.querySelector("main").childNodes);
    if (facts) begin();
  }
  tick();
}

/** Follows /v1/events, which say when to look again. Comes back when cut off. */
async function follow() {
  for (;;) {
    try {
      const answer = await fetch("/v1/events", { headers: headers() });
      if (!answer.ok) throw new Error(String(answer.status));
      await load(); // after the stream has begun, so that nothing falls between the two
      say("live", true);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ""; ; ) {
        const { done, value } = await reader.read();
        if (done) break;
        text += value;
        const end = text.lastIndexOf("\n\n");
        if (end < 0) continue;
        if (/^event: /m.test(text.slice(0, end))) await load();
        text = text.slice(end + 2);
      }
    } catch {
      // said below
    }
    say("not connected, trying again", false);
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

function curl(body, scope, csv) {
  const words = ["curl -s", quoted(`${location.origin}/v1/query`)];
  if (token()) words.push(`-H "Authorization: Bearer $MARTD_TOKEN"`);
  if (scope) words.push("-H", quoted(`Martd-Scope: ${scope}`));
  if (csv) words.push("-H", quoted("Accept: text/csv"));
  words.push("--json", quoted(JSON.stringify(body)));
  return words.join(" ");
}

/** Numbers as they were sent: a 64-bit integer or a decimal would lose digits as a number here. */
const exact = (_, value, context) =>
  typeof value === "number" && context?.source ? { number: context.source } : value;

function cell(value) {
  if (value === null) return element("td", "null", "null");
  if (typeof value !== "object") return element("td", String(value));
  if ("number" in value) return element("td", value.number, "number");
  const plain = (_, inner) => (inner && typeof inner === "object" && "number" in inner ? Number(inner.number) : inner);
  return element("td", JSON.stringify(value, plain));
}

function table(answer) {
  const head = element("tr", answer.meta.map(({ name, type }) => {
    const column = element("th", name);
    column.scope = "col";
    column.title = type;
    return column;
  }));
  const rows = answer.data.map((row) =>
    element("tr", answer.meta.map(({ name }) => cell(row[name]))));
  const made = element("div", element("table", [element("thead", head), element("tbody", rows)]), "scroll");
  made.tabIndex = 0;
  made.role = "region";
  made.ariaLabel = "Rows";
  return made;
}

/** The statement with the word marked at which it is wrong: the place is told in bytes. */
function marked(sql, position) {
  const bytes = new TextEncoder().encode(sql);
  const [before, rest] = [bytes.slice(0, position), bytes.slice(position)].map((b) => new TextDecoder().decode(b));
  const [word] = /^\w+|^[^]?/.exec(rest);
  return element("pre", [before, element("mark", word || " "), rest.slice(word.length)]);
}

function failure({ title, detail, position }, sql) {
  if (position === undefined) return [element("p", `${title}: ${detail}`, "failed")];
  // DuckDB shows the line with a mark of its own.
  const [message] = detail.split("\n\nLINE ");
  return [element("p", `${title}: ${message}`, "failed"), marked(sql, position)];
}

function save(blob) {
  const link = element("a");
  link.href = URL.createObjectURL(blob);
  link.download = "martd.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function run(form, button) {
  const csv = button.value === "csv";
  const body = { sql: byId("sql").value, limit: csv ? Number(form.dataset.maxRows) : 200 };
  const column = form.dataset.scope;
  const value = byId("scope")?.value;
  // A header is ASCII; RFC 8187 has the form for other letters.
  const scope = column && (value === "*" ? "*" : /^[ -~]*$/.test(value) ? `${column}=${value}`
    : `${column}*=UTF-8''${encodeURIComponent(value)}`);
  byId("curl").textContent = curl(body, scope, csv);
  button.disabled = true;
  try {
    const more = { "Content-Type": "application/json", ...(csv && { Accept: "text/csv" }), ...(scope && { "Martd-Scope": scope }) };
    const response = await fetch("/v1/query", { method: "POST", headers: headers(more), body: JSON.stringify(body) });
    if (response.ok && csv) {
      save(await response.blob());
      byId("answer").replaceChildren();
      return;
    }
    const text = await response.text();
    if (response.ok) {
      const answer = JSON.parse(text, exact);
      const { number: rows } = answer.rows.number ? answer.rows : { number: answer.rows };
      const seconds = Number(answer.statistics.elapsed.number ?? answer.statistics.elapsed);
      const cut = answer.truncated ? ", cut off" : "";
      const summary = `${rows} ${String(rows) === "1" ? "row" : "rows"}${cut}, ${(seconds * 1000).toFixed(1)} ms`;
      byId("answer").replaceChildren(element("p", summary, "hint"), table(answer));
    } else {
      byId("answer").replaceChildren(...failure(JSON.parse(text), body.sql));
    }
  } catch (error) {
    byId("answer").replaceChildren(element("p", `martd does not answer: ${error.message}`, "failed"));
  } finally {
    button.disabled = false;
  }
}

function begin() {
  const form = byId("query");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run(form, event.submitter ?? form.querySelector("button"));
  });
  byId("sql").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  setInterval(tick, 1_000);
  setInterval(() => load().catch(() => {}), RELOAD_MS);
  follow();
}

async function show(given) {
  sessionStorage.setItem(TOKEN, given);
  try {
    await load();
  } catch (error) {
    sessionStorage.removeItem(TOKEN);
    byId("token-problem").textContent =
      error.message === "401" ? "That token is not known." : "martd does not answer.";
  }
}

if (byId("facts")) {
  begin();
} else {
  byId("token").addEventListener("submit", (event) => {
    event.preventDefault();
    show(byId("token-value").value);
  });
  if (token()) show(token());
}
