// A room: shows what was said, says what is typed, and comes back after a loss without missing anything.
const list = document.getElementById("messages");
const state = document.getElementById("state");
const here = document.getElementById("here");
const input = document.getElementById("text");
const COME_BACK = new Set([1001, 1005, 1006, 1011, 1012, 1013]); // any other code means: do not

let last = 0;
let socket = null;
let pause = 250;

function show(message) {
  if (message.id <= last || document.getElementById(`message-${message.id}`)) return;
  last = message.id;
  const item = document.createElement("li");
  item.id = `message-${message.id}`;
  const author = document.createElement("b");
  author.textContent = message.author;
  const time = document.createElement("time");
  time.dateTime = message.sent_at;
  time.textContent = new Date(message.sent_at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  item.append(author, message.text, time);
  list.append(item);
  list.scrollTop = list.scrollHeight;
}

function tell(text, lost) {
  state.textContent = text;
  state.className = lost ? "lost" : "";
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(`${scheme}//${location.host}/ws/rooms/${list.dataset.slug}/`);
  socket.onopen = () => {
    pause = 250;
    tell("connected");
    socket.send(JSON.stringify({ after: last }));
  };
  socket.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.message) show(event.message);
    if (event.deleted) document.getElementById(`message-${event.deleted}`)?.remove();
    if (event.here) here.textContent = `here: ${event.here.join(", ")}`;
    if (event.error) tell(event.error, true);
  };
  socket.onclose = ({ code, reason }) => {
    here.textContent = "";
    if (code === 4401) tell(`closed: ${reason || "log in first"}`, true);
    else if (!COME_BACK.has(code)) tell(`closed with ${code} ${reason}`, true);
    else {
      tell("lost, trying again", true);
      setTimeout(connect, pause * (0.5 + Math.random()));
      pause = Math.min(2 * pause, 10000);
    }
  };
}

document.getElementById("say").addEventListener("submit", (event) => {
  if (!socket || socket.readyState !== WebSocket.OPEN) return; // then the form itself is sent
  event.preventDefault();
  if (input.value.trim()) socket.send(JSON.stringify({ text: input.value }));
  input.value = "";
});

JSON.parse(document.getElementById("said").textContent).forEach(show);
connect();
