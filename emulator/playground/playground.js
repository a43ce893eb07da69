'use strict';
// The page of the playground. Content from other users is shown as text, never as markup.

const $ = (id) => document.getElementById(id);
const kept = { place: 'parley.playground.place', speaker: 'parley.playground.speaker.', token: 'parley.playground.token' }; // in sessionStorage: gone with the tab
const most = 500; // lines that are kept of a place
const again = 3000; // ms until the events are asked for again

const platforms = new Map(); // by id, as the events bring them
const places = new Map(); // by id: { place, platform, lines by key, unread, button, count }
let current = null, answering = null, opened = 0, sending = false;
let chosen = false; // by the person, and not by the page from what is kept
let follows = true; // the log stays at its end unless it was scrolled away from it

function make(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

function state(kind, text) {
  $('state').dataset.state = kind;
  $('state-text').textContent = text;
}

function alertWith(text) { $('alert').textContent = text; }

// takeToken moves the token of this start from the address bar (#demo=TOKEN) to sessionStorage. A browser sends no
// fragment to a server, and the token leaves the history.
function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get('demo');
  if (!token) return false;
  sessionStorage.setItem(kept.token, token);
  history.replaceState(null, '', location.pathname + location.search);
  return true;
}

function request(path, options = {}) {
  const headers = { Authorization: 'Bearer ' + (sessionStorage.getItem(kept.token) || ''), ...options.headers };
  return fetch(path, { cache: 'no-store', ...options, headers });
}

// listen reads the events. EventSource can't send the token in a header.
async function listen() {
  try {
    const answer = await request('events');
    if (answer.status === 401) {
      state('off', 'Open the address that the emulator printed; it holds the token');
      return;
    }
    if (!answer.ok) throw new Error(answer.statusText);
    state('on', 'Connected');
    opened = Date.now();
    for (const p of places.values()) p.lines.clear(); // they come again
    if (current) showLog();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ''; ;) {
      const { value, done } = await reader.read();
      if (done) break;
      const events = (rest + value).split('\n\n');
      rest = events.pop();
      for (const event of events) takeEvent(event);
    }
  } catch { /* asked for again */ }
  state('wait', 'Connection lost; trying again…');
  setTimeout(listen, again);
}

// takeEvent takes an event of the form "event: NAME\ndata: JSON". Other events are heartbeats.
function takeEvent(text) {
  const [, name, data] = text.match(/^event: (\w+)\ndata: (.*)$/) || [];
  if (name === 'platform') takePlatform(JSON.parse(data));
  if (name === 'lines') takeLines(JSON.parse(data));
}

function known(id) {
  let p = places.get(id);
  if (!p) places.set(id, p = { place: null, platform: null, lines: new Map(), unread: 0, button: null, count: null });
  return p;
}

function takePlatform(platform) {
  let group = platforms.get(platform.id);
  if (!group) {
    group = { list: make('ul') };
    platforms.set(platform.id, group);
    const title = make('h2', '', platform.name);
    title.id = 'places-' + platform.id;
    group.list.setAttribute('aria-labelledby', title.id);
    $('places').append(title, group.list);
  }
  const items = platform.places.map((place) => {
    const p = known(place.id);
    p.place = place;
    p.platform = platform;
    if (!p.button) {
      p.button = make('button');
      p.button.type = 'button';
      p.name = make('span');
      p.count = make('span', 'count');
      p.button.append(p.name, p.count);
      p.button.onclick = () => { choose(p); ($('compose').hidden ? $('log') : $('text')).focus(); };
      p.item = make('li');
      p.item.append(p.button);
    }
    p.name.textContent = place.name;
    showCount(p);
    return p.item;
  });
  // only what changed is moved, so that the focus stays where it is
  for (const item of [...group.list.children]) if (!items.includes(item)) item.remove();
  items.forEach((item, i) => { if (group.list.children[i] !== item) group.list.insertBefore(item, group.list.children[i] || null); });
  const before = chosen ? null : platform.places.find((place) => place.id === sessionStorage.getItem(kept.place));
  if (before && known(before.id) !== current) {
    enter(known(before.id));
  } else if (!current) {
    enter(known(platform.places[0].id));
  } else if (current.platform.id === platform.id) {
    showPlace();
  }
}

function showCount(p) {
  p.count.hidden = !p.unread;
  p.count.replaceChildren(String(p.unread), make('span', 'hidden', ' new'));
}

function choose(p) {
  chosen = true;
  sessionStorage.setItem(kept.place, p.place.id);
  enter(p);
}

function enter(p) {
  if (current) current.button.removeAttribute('aria-current');
  current = p;
  p.unread = 0;
  showCount(p);
  p.button.setAttribute('aria-current', 'true');
  answer(null);
  alertWith('');
  showPlace();
  showLog();
}

function showPlace() {
  const { place, platform } = current;
  $('chat-title').textContent = platform.name + ': ' + place.name;
  document.title = place.name + ' · Parley';
  const speaks = place.kind !== 'moderation';
  $('hears').textContent = !speaks ? 'What moderators did' : place.bots.length ? 'Connected here: ' + place.bots.join(', ') : 'No bot is connected here';
  $('compose').hidden = !speaks;
  $('empty').textContent = speaks ? 'Nothing was said here.' : 'No moderator did anything yet.';
  const select = $('speaker');
  const options = place.speakers.map((s) => new Option(s.note ? s.name + ' (' + s.note + ')' : s.name, s.id));
  const same = options.length === select.length && options.every((o, i) => o.value === select.options[i].value && o.text === select.options[i].text);
  const wanted = sessionStorage.getItem(kept.speaker + platform.id);
  if (!same) select.replaceChildren(...options);
  if (place.speakers.some((s) => s.id === wanted)) select.value = wanted;
  $('send').disabled = sending || !place.speakers.length;
}

function takeLines(lines) {
  const log = $('log');
  if (lines.every((line) => line.at <= opened)) hush();
  for (const line of lines) {
    const p = known(line.place);
    const old = p.lines.get(line.key);
    const item = p === current ? draw(p, line) : null;
    p.lines.set(line.key, { line, item });
    if (p !== current) {
      if (!old && line.at > opened) p.unread++;
    } else if (old) {
      old.item.replaceWith(item);
    } else {
      log.append(item);
    }
    if (p.lines.size > most) {
      const [key, first] = p.lines.entries().next().value;
      p.lines.delete(key);
      if (first.item) first.item.remove();
    }
  }
  for (const p of places.values()) if (p.button) showCount(p);
  $('empty').hidden = log.children.length > 0;
  follow();
}

function follow() { if (follows) $('log').scrollTop = $('log').scrollHeight; }

$('log').onscroll = () => {
  const log = $('log');
  follows = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
};

new ResizeObserver(follow).observe($('log'));

// hush keeps what is put into the log now from being read out: only what comes from then on is.
function hush() {
  const log = $('log');
  log.setAttribute('aria-live', 'off');
  requestAnimationFrame(() => log.setAttribute('aria-live', 'polite'));
}

function showLog() {
  const log = $('log');
  hush();
  for (const entry of current.lines.values()) entry.item = draw(current, entry.line);
  log.replaceChildren(...[...current.lines.values()].map((entry) => entry.item));
  $('empty').hidden = log.children.length > 0;
  follows = true;
  follow();
}

function draw(p, line) {
  const item = make('div', ['bot', 'action', 'deleted'].filter((name) => line[name]).join(' '));
  const meta = make('p', 'meta');
  meta.append(make('strong', '', line.name));
  if (line.bot) meta.append(make('span', 'badge', 'bot'));
  if (line.to) meta.append(make('span', '', 'to ' + line.to));
  meta.append(make('span', '', clock(line.at)));
  if (line.via) meta.append(make('span', '', 'by ' + line.via));
  if (line.edited) meta.append(make('span', '', 'edited'));
  if (line.deleted) meta.append(make('span', '', 'deleted'));
  if (line.id && !line.deleted && p.place && p.place.kind === 'channel') {
    const reply = make('button', 'quiet', 'Answer');
    reply.type = 'button';
    reply.setAttribute('aria-label', 'Answer ' + line.name + ': ' + line.text.slice(0, 60));
    reply.onclick = () => { answer(line); $('text').focus(); };
    meta.append(reply);
  }
  item.append(meta);
  if (line.about) item.append(make('p', 'about', about(line.about)));
  item.append(make('p', 'said', line.text));
  return item;
}

// about is what a line answers, or what was deleted.
function about(id) {
  for (const p of places.values()) {
    for (const { line } of p.lines.values()) if (line.id === id) return line.name + ': ' + line.text;
  }
  return 'an earlier line';
}

function clock(t) {
  return new Date(t).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit' });
}

function answer(line) {
  answering = line;
  $('answering').hidden = !line;
  $('answering-text').textContent = line ? 'Answers ' + line.name + ': ' + line.text.slice(0, 80) : '';
}

$('answering-end').onclick = () => { answer(null); $('text').focus(); };

$('speaker').onchange = () => sessionStorage.setItem(kept.speaker + current.platform.id, $('speaker').value);

$('compose').onsubmit = async (e) => {
  e.preventDefault();
  const text = $('text').value;
  if (!text.trim() || sending || !current) return;
  if (!$('speaker').value) { alertWith('Choose whom to speak as.'); return; }
  const user = $('speaker').value;
  const said = { user, text };
  if (!current.place.messages.endsWith('/whispers')) said.typed = true; // whispers have no rules for people
  if (answering) said.replyTo = answering.id;
  sending = true;
  $('send').disabled = true;
  try {
    const path = 'api/' + current.place.messages.replace('{user}', encodeURIComponent(user));
    const reply = await request(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(said) });
    if (reply.ok) {
      alertWith('');
      answer(null);
      if ($('text').value === text) $('text').value = '';
    } else {
      const { error, field } = await reply.json();
      alertWith('Not said: ' + (field === 'text' ? '' : field + ' ') + error);
    }
  } catch {
    alertWith('Not said: the emulator does not answer.');
  }
  sending = false;
  $('send').disabled = false;
  $('text').focus();
};

$('text').onkeydown = (e) => {
  if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) {
    e.preventDefault();
    $('compose').requestSubmit();
  }
};

addEventListener('hashchange', () => { if (takeToken()) location.reload(); });

takeToken();
listen();
