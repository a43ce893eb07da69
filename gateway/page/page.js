'use strict';
// The chat page: a client of the WebSocket protocol at /ws/v1. Text from other users is shown as text, never as markup.

const $ = (id) => document.getElementById(id);
const storageKeys = { token: 'parley.token', room: 'parley.room', demo: 'parley.demo' }; // in sessionStorage: deleted when the tab closes

// isFinal reports whether a close code forbids reconnecting: the private codes 4500 to 4999.
const isFinal = (code) => code >= 4500 && code < 5000;
const roomFrame = 'room'; // metadata.id of the frames that join or leave a room
const minBackoff = 500, maxBackoff = 20000; // ms between attempts to reconnect
const maxFirstAttempts = 4; // a browser hides why a handshake failed: after 4 failures, the page assumes a wrong token
const resendWithin = 60000; // ms: a message younger than this is sent again after a reconnect, with the same id

let socket = null, ready = false, leaving = false, attempts = 0, everReady = false, timer = 0;
let token = '', room = '';
const lastIds = []; // ids of the last 20 deliveries, sent to the gateway when reconnecting
const seen = new Set(); // ids of deliveries: the gateway may send a delivery twice
const sent = new Map(); // messages of this page, by id

function state(kind, text) {
  $('state').dataset.state = kind;
  $('state-text').textContent = text;
}

function alertWith(text) { $('alert').textContent = text; }

function connect() {
  clearTimeout(timer);
  leaving = false;
  state('wait', attempts ? 'Reconnecting…' : 'Connecting…');
  try {
    // Browsers set no headers on a WebSocket. The token is a sub-protocol and never in the URL, because URLs are logged.
    const after = new URLSearchParams(lastIds.map((id) => ['after', id]));
    socket = new WebSocket(location.origin.replace(/^http/, 'ws') + '/ws/v1?' + after, ['parley.v1', 'bearer.' + token]);
  } catch {
    signOut('This cannot be a token: it holds characters that a token never has.');
    return;
  }
  const s = socket;
  s.onmessage = (e) => { if (s === socket) receive(JSON.parse(e.data)); };
  s.onclose = (e) => { if (s === socket) closed(e); };
}

function closed(e) {
  socket = null;
  ready = false;
  $('compose').querySelector('button').disabled = true;
  if (leaving) return;
  if (isFinal(e.code)) { signOut('The connection was closed: ' + (e.reason || e.code) + '. Use another token.'); return; }
  attempts++;
  if (!everReady && attempts >= maxFirstAttempts) { signOut('The gateway refused the connection. Is the token right, and still valid?'); return; }
  const wait = Math.min(maxBackoff, minBackoff * 2 ** (attempts - 1)) * (0.5 + Math.random());
  state('wait', 'Connection lost; next attempt in ' + Math.max(1, Math.round(wait / 1000)) + ' s');
  timer = setTimeout(connect, wait);
}

function receive(f) {
  const metadata = f.metadata || {}, payload = f.payload || {};
  switch (f.type) {
    case 'connection.ready':
      ready = everReady = true;
      attempts = 0;
      state('on', payload.user_id);
      alertWith('');
      if (payload.recovered === false) note('Some of what came while you were away may be missing.');
      $('compose').querySelector('button').disabled = false;
      show(true);
      if (room) send('room.join', { room }, roomFrame);
      for (const m of sent.values()) {
        if (!m.done && Date.now() - m.at < resendWithin) transmit(m);
      }
      return;
    case 'room.joined': case 'room.left':
      alertWith('');
      note(f.type === 'room.joined' ? 'You are in “' + payload.room + '”.' : 'You left “' + payload.room + '”.');
      return;
    case 'chat.error': {
      const m = sent.get(payload.id);
      if (payload.id === roomFrame) refusedRoom();
      if (m) fail(m, payload.code + ': ' + payload.message); else alertWith(payload.code + ': ' + payload.message);
      return;
    }
    default: {
      if (metadata.id && seen.has(metadata.id)) return;
      if (metadata.id) {
        seen.add(metadata.id);
        lastIds.push(metadata.id);
        if (lastIds.length > 20) lastIds.shift();
      }
      const m = sent.get(metadata.replyTo);
      if (m) { m.done = true; m.info.textContent = clock(m.at); }
      const text = typeof payload.text === 'string' ? payload.text : f.type + ' ' + JSON.stringify(payload);
      addLine('', text, ['Parley', metadata.channel, clock(metadata.timestamp)].filter(Boolean).join(' · '));
    }
  }
}

function send(type, payload, id) {
  if (!ready) return false;
  socket.send(JSON.stringify({ type, payload, metadata: { id, timestamp: new Date().toISOString() } }));
  return true;
}

function transmit(m) {
  m.item.classList.remove('failed');
  m.info.textContent = send('chat.message.send', m.payload, m.id) ? clock(m.at) : 'waits for the connection';
}

function fail(m, why) {
  m.done = true; // only the button sends the message again
  m.item.classList.add('failed');
  m.info.textContent = why + ' ';
  const again = document.createElement('button');
  again.type = 'button';
  again.className = 'quiet';
  again.textContent = 'Send again';
  again.onclick = () => { m.done = false; m.at = Date.now(); transmit(m); $('text').focus(); };
  m.info.append(again);
}

function addLine(kind, text, info) {
  $('empty').hidden = true;
  const log = $('log'), item = document.createElement('div');
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  item.className = kind;
  const said = document.createElement('p');
  said.className = 'said';
  said.textContent = text;
  item.append(said);
  const meta = document.createElement('p');
  meta.className = 'meta';
  meta.textContent = info;
  if (kind !== 'note') item.append(meta);
  log.append(item);
  while (log.children.length > 500) log.firstElementChild.remove();
  if (atEnd || kind === 'mine') log.scrollTop = log.scrollHeight;
  return { item, info: meta };
}

function note(text) { addLine('note', text, ''); }

function clock(t) {
  return new Date(t || Date.now()).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
}

function show(chat) {
  const was = !$('chat').hidden;
  $('chat').hidden = $('leave').hidden = !chat;
  $('sign-in').hidden = chat;
  if (chat !== was) (chat ? $('text') : firstField()).focus();
}

function firstField() { return $('demo').hidden ? $('token') : $('demo-user'); }

function enter(t) {
  token = t;
  sessionStorage.setItem(storageKeys.token, t);
  attempts = 0;
  everReady = false;
  alertWith('');
  connect();
}

function signOut(why) {
  leaving = true;
  clearTimeout(timer);
  if (socket) socket.close(1000);
  socket = null;
  ready = false;
  token = '';
  sessionStorage.removeItem(storageKeys.token);
  sent.clear();
  lastIds.length = 0;
  $('log').replaceChildren();
  $('empty').hidden = false;
  $('token').value = '';
  state(why ? 'bad' : 'off', 'Not connected');
  show(false);
  alertWith(why || '');
}

function enterRoom(next) {
  if (room && room !== next) send('room.leave', { room }, roomFrame);
  room = next;
  sessionStorage.setItem(storageKeys.room, room);
  $('room').value = room;
  $('room-leave').hidden = !room;
  $('chat-title').textContent = room ? 'Room ' + room : 'Just you and the bot';
}

// refusedRoom leaves the page without a room, with the refused name still in the field.
function refusedRoom() {
  const name = room;
  room = '';
  enterRoom('');
  $('room').value = name;
  $('room').focus();
}

$('sign-in-form').onsubmit = (e) => {
  e.preventDefault();
  const t = $('token').value.trim() || ($('demo').hidden ? '' : $('demo-user').value);
  if (t) { enter(t); return; }
  alertWith('Paste a token first.');
  $('token').focus();
};

$('room-form').onsubmit = (e) => {
  e.preventDefault();
  const next = $('room').value.trim();
  if (!next) return;
  enterRoom(next);
  send('room.join', { room }, roomFrame);
  $('text').focus();
};

$('room-leave').onclick = () => { enterRoom(''); $('text').focus(); };
$('leave').onclick = () => signOut('');

$('compose').onsubmit = (e) => {
  e.preventDefault();
  const text = $('text').value;
  if (!text.trim() || !ready) return;
  const m = { id: crypto.getRandomValues(new Uint32Array(4)).join('-'), at: Date.now(), done: false, payload: room ? { text, room } : { text } };
  Object.assign(m, addLine('mine', text, ''));
  sent.set(m.id, m);
  if (sent.size > 500) sent.delete(sent.keys().next().value);
  transmit(m);
  alertWith('');
  $('text').value = '';
  $('text').focus();
};

$('text').onkeydown = (e) => {
  if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) {
    e.preventDefault();
    $('compose').requestSubmit();
  }
};

addEventListener('online', () => { if (!socket && token) { attempts = 0; connect(); } });

// takeSecret moves the secret for the demo users from the address bar (#demo=SECRET) to sessionStorage. A browser sends no
// fragment to a server. A reload keeps the secret; history and bookmarks never get it.
function takeSecret() {
  const secret = new URLSearchParams(location.hash.slice(1)).get('demo');
  if (secret === null) return false;
  history.replaceState(null, '', location.pathname + location.search);
  sessionStorage.setItem(storageKeys.demo, secret);
  return true;
}

// offerDemoUsers lists the demo users of a gateway on a laptop. Without the right secret, it shows a hint.
async function offerDemoUsers() {
  const secret = sessionStorage.getItem(storageKeys.demo);
  try {
    const answer = await fetch('/demo/tokens', { headers: secret ? { Authorization: 'Bearer ' + secret } : {}, cache: 'no-store' });
    const users = answer.ok ? await answer.json() : {};
    $('demo-user').replaceChildren(...Object.keys(users).sort().map((user) => new Option(user, users[user])));
    $('demo').hidden = !answer.ok;
    $('demo-locked').hidden = answer.status !== 401;
    $('token-label').textContent = answer.ok ? 'Or a token' : 'Token';
    if (answer.status === 401) sessionStorage.removeItem(storageKeys.demo); // from an earlier start
  } catch { /* without an answer there are no demo users */ }
}

// A pasted address that differs only in its fragment does not reload the page.
addEventListener('hashchange', async () => {
  if (!takeSecret()) return;
  await offerDemoUsers();
  if (!token) firstField().focus();
});

async function start() {
  takeSecret();
  enterRoom(sessionStorage.getItem(storageKeys.room) || '');
  const before = sessionStorage.getItem(storageKeys.token);
  if (before) enter(before);
  await offerDemoUsers();
  if (!before) firstField().focus();
}
start();
