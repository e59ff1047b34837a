// The page of the chat: one socket, what it says, and how it comes back. No build step, no libraries.

// The close codes after which coming back makes sense; trichannels/exceptions.py has the table (a test compares them).
const RECONNECT = [1001, 1005, 1006, 1011, 1012, 1013];
const FIRST_DELAY = 500; // ms; doubles with each failure
const LONGEST_DELAY = 30_000; // ms
const STEADY = 5_000; // ms a connection must hold before its failures are forgotten
const TYPING_EVERY = 2_000; // ms between two "I am typing"
const TYPING_LASTS = 5_000; // ms a "typing" is believed without news
const KEEP = 500; // lines kept in the page

const $ = (id) => document.getElementById(id);
const room = decodeURIComponent(location.pathname.split("/").pop());

let name = recall("name");
let me = null; // our member id, while we are in
let socket = null;
let failures = 0;
let retry = null; // timer of the next try
let everIn = false;
let atEnd = true; // the newest message is in sight: stay there
const people = new Map(); // member id -> {name, item, timer}

function recall(key) {
  try { return localStorage.getItem(`trichannels.${key}`) ?? ""; } catch { return ""; }
}

function remember(key, value) {
  try { localStorage.setItem(`trichannels.${key}`, value); } catch { /* a private window: ask again next time */ }
}

// The connection

function connect() {
  clearTimeout(retry);
  retry = null;
  show("trying", everIn ? "Reconnecting…" : "Connecting…");
  const url = new URL(`/ws/${encodeURIComponent(room)}`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const mine = new WebSocket(url);
  socket = mine;
  let steady = null;
  mine.onopen = () => {
    steady = setTimeout(() => { failures = 0; }, STEADY);
    send({ kind: "enter", name });
  };
  mine.onmessage = ({ data }) => {
    if (mine !== socket) return;
    const event = JSON.parse(data);
    HANDLERS[event.kind]?.(event);
  };
  mine.onclose = ({ code, reason }) => {
    clearTimeout(steady);
    if (mine === socket) lost(code, reason);
  };
}

function send(request) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(request));
}

function leave() {
  clearTimeout(retry);
  retry = null;
  const old = socket;
  socket = null;
  me = null;
  old?.close(1000);
  clearPeople();
}

function lost(code, reason) {
  const wasIn = me !== null;
  socket = null;
  me = null;
  clearPeople();
  if (wasIn) news(`Connection lost at ${clock(new Date())}`, "lost");
  if (!RECONNECT.includes(code)) {
    show("ended", "Disconnected", `The server ended the connection${reason ? `: ${reason}` : ""} (${code}).`);
    return;
  }
  // Full jitter: a server that restarts must not be met by everybody at once.
  const delay = Math.random() * Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures);
  failures += 1;
  wait(performance.now() + delay);
}

function wait(until) {
  const left = until - performance.now();
  if (left <= 0) return connect();
  const seconds = Math.ceil(left / 1000);
  const what = everIn ? "Connection lost" : "No connection";
  show("waiting", what, `${what}. Next try in ${seconds}\u00a0s.`);
  retry = setTimeout(wait, Math.min(left, 1000), until);
}

function tryNow() {
  if (socket !== null || !name) return;
  connect();
}

function hurry() {
  if (retry !== null) tryNow();
}

function show(state, text, detail = "") {
  document.body.dataset.state = state;
  if ($("state").textContent !== text) $("state").textContent = text;
  $("lost").hidden = !detail;
  if (detail) $("lost-text").textContent = detail;
  $("send").disabled = state !== "live";
}

// What the server tells

const HANDLERS = {
  welcome({ member, name: known }) {
    me = member;
    show("live", "Connected");
    complain("");
    if (everIn) news(`Back at ${clock(new Date())}. What was said meanwhile is not shown here.`, "back");
    everIn = true;
    arrive(member, known);
  },
  entered({ member, name: who }) {
    if (member === me) return;
    arrive(member, who);
    news(`${who} joined`);
  },
  here({ member, name: who }) {
    arrive(member, who);
  },
  left({ member, name: who }) {
    if (people.has(member)) news(`${who} left`);
    depart(member);
  },
  typing({ member, active }) {
    setTyping(member, active);
  },
  said(event) {
    setTyping(event.member, false);
    say(event);
  },
  dropped() {
    news("This tab was too slow, and some messages were dropped.", "lost");
  },
  error({ text }) {
    if (me === null) {
      leave();
      show("idle", "Not connected");
      openDoor(text);
    } else {
      complain(text);
    }
  },
};

// People

function arrive(member, who) {
  if (people.has(member)) return;
  const item = element("li", { "data-member": member });
  item.append(face(who), element("span", { class: "who" }, who));
  if (member === me) item.append(element("span", { class: "you" }, "you"));
  const dots = element("span", { class: "dots", title: "is typing" });
  dots.append(element("i"), element("i"), element("i"));
  item.append(dots);
  people.set(member, { name: who, item, timer: null });
  if (member === me) $("people").prepend(item);
  else $("people").append(item);
  countPeople();
}

function depart(member) {
  setTyping(member, false);
  people.get(member)?.item.remove();
  people.delete(member);
  countPeople();
}

function clearPeople() {
  for (const member of [...people.keys()]) depart(member);
}

function countPeople() {
  $("count").textContent = String(people.size);
}

function setTyping(member, active) {
  const person = people.get(member);
  if (!person) return;
  clearTimeout(person.timer);
  person.timer = active ? setTimeout(setTyping, TYPING_LASTS, member, false) : null;
  person.item.classList.toggle("typing-now", active);
  const names = [...people.values()].filter((p) => p.timer !== null).map((p) => p.name);
  $("typing").textContent = typingLine(names);
}

function typingLine(names) {
  if (names.length === 0) return "";
  if (names.length === 1) return `${names[0]} is typing…`;
  if (names.length === 2) return `${names[0]} and ${names[1]} are typing…`;
  return `${names.length} people are typing…`;
}

// Messages

function say({ member, name: who, text, at }) {
  const when = new Date(at);
  const last = $("log").lastElementChild;
  const item = element("li", { class: "said", "data-member": member });
  item.style.setProperty("--hue", hue(who));
  item.classList.toggle("mine", member === me);
  item.classList.toggle("more", last?.dataset.member === member);
  const by = element("span", { class: "by" });
  by.append(element("b", {}, who), element("time", { datetime: at }, clock(when)));
  item.append(by, face(who), element("span", { class: "text" }, text));
  add(item, member === me);
}

function news(text, kind = "") {
  add(element("li", { class: `news ${kind}` }, text));
}

function add(item, mine = false) {
  $("log").append(item);
  if (item.classList.contains("said")) $("empty").hidden = true;
  while ($("log").children.length > KEEP) $("log").firstElementChild.remove();
  if (atEnd || mine) toEnd();
  else $("newer").hidden = false;
}

function toEnd() {
  $("scroll").scrollTop = $("scroll").scrollHeight;
}

function face(who) {
  const item = element("span", { class: "face", "aria-hidden": "true" }, ([...who][0] ?? "?").toUpperCase());
  item.style.setProperty("--hue", hue(who));
  return item;
}

function hue(who) {
  let sum = 7;
  for (const letter of who) sum = (sum * 31 + letter.codePointAt(0)) % 9973;
  return String((sum * 137) % 360);
}

function clock(when) {
  return when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

// Text goes in as text: nothing that somebody wrote is ever read as HTML.
function element(tag, attributes = {}, text = null) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

function complain(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

// The composer

let lastTyping = 0; // when we last said that we type; 0 if we do not

function typed() {
  const field = $("text");
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + 2}px`;
  complain("");
  const now = performance.now();
  if (field.value.trim() === "") return stopTyping();
  if (!lastTyping || now - lastTyping > TYPING_EVERY) {
    lastTyping = now;
    send({ kind: "typing", active: true });
  }
}

function stopTyping() {
  if (lastTyping) send({ kind: "typing", active: false });
  lastTyping = 0;
}

function submit(event) {
  event?.preventDefault();
  const text = $("text").value.trim();
  if (!text || me === null) return;
  send({ kind: "say", text });
  lastTyping = 0; // the message itself says that we stopped
  $("text").value = "";
  typed();
  $("text").focus();
}

// The door: who are you, and which room

function openDoor(problem = "") {
  $("name").value = name;
  $("door-room").value = room;
  $("door-problem").textContent = problem;
  $("door-problem").hidden = !problem;
  if (!$("door").open) $("door").showModal();
  $("name").select();
}

function enter(event) {
  event.preventDefault();
  const chosen = $("name").value.trim();
  if (!chosen) return openDoor("A name needs at least one character.");
  const where = $("door-room").value;
  const sameName = chosen === name;
  name = chosen;
  remember("name", name);
  $("door").close();
  if (where !== room) return location.assign(`/room/${encodeURIComponent(where)}`);
  if (!(sameName && me !== null)) {
    leave();
    everIn = false;
    connect();
  }
  $("text").focus();
}

$("room").textContent = room;
$("address").textContent = `/room/${room}`;
$("second").href = location.pathname;
document.title = `#${room} · trichannels chat`;

$("composer").addEventListener("submit", submit);
$("text").addEventListener("input", typed);
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
});
$("scroll").addEventListener("scroll", () => {
  const box = $("scroll");
  atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
  if (atEnd) $("newer").hidden = true;
});
new ResizeObserver(() => { if (atEnd) toEnd(); }).observe($("scroll"));
$("newer").addEventListener("click", toEnd);
$("again").addEventListener("click", tryNow);
$("change").addEventListener("click", () => openDoor());
$("door-form").addEventListener("submit", enter);
$("door").addEventListener("cancel", (event) => { if (!name) event.preventDefault(); });

addEventListener("online", hurry);
addEventListener("offline", () => {
  if (socket === null) return;
  const old = socket;
  lost(1006, ""); // the browser itself would notice only after its own long deadline
  old.close();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) hurry(); });

if (name) connect();
else openDoor();
