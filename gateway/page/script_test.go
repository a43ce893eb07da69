package page_test

import (
	"os/exec"
	"strings"
	"testing"
)

// runScript runs page.js on Node with a minimal document, and returns the output of the steps. steps is JavaScript in an
// async function. It sees open(hash), which loads the page anew in the same tab, and the log of requests.
func runScript(t *testing.T, steps string) string {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("needs node")
	}
	const harness = `
const vm = require('vm'), fs = require('fs'), code = fs.readFileSync('page.js', 'utf8');
const stored = new Map(), requests = [];
let secret = 'right', page;
const sessionStorage = { getItem: (k) => stored.has(k) ? stored.get(k) : null, setItem: (k, v) => stored.set(k, v), removeItem: (k) => stored.delete(k) };
function element() {
  const e = { hidden: true, textContent: '', dataset: {}, value: '', options: [], children: [], classList: { add() {}, remove() {} } };
  return Object.assign(e, { focus() {}, append() {}, querySelector: () => element(), replaceChildren: (...c) => { e.options = c; } });
}
async function open(hash) {
  const elements = {}, listeners = {};
  const location = { hash, pathname: '/', search: '', origin: 'http://127.0.0.1:8080' };
  const history = { replaceState: (s, t, url) => { location.hash = ''; location.url = url; } };
  page = { elements, location, listeners };
  page.script = {
    location, history, sessionStorage, URLSearchParams, clearTimeout, setTimeout,
    document: { getElementById: (id) => elements[id] ||= element(), createElement: element },
    Option: function (text, value) { return { text, value }; }, WebSocket: function () {},
    addEventListener: (kind, f) => { listeners[kind] = f; },
    fetch: async (url, o) => {
      requests.push(url + ' ' + (o.headers.Authorization || 'none'));
      const ok = secret && o.headers.Authorization === 'Bearer ' + secret;
      return { ok, status: ok ? 200 : secret ? 401 : 404, json: async () => ({ 'twitch:1': 'token-1', 'api-gateway:eve': 'token-2' }) };
    },
  };
  vm.runInNewContext(code, page.script);
  await settle();
}
const settle = () => new Promise((done) => setTimeout(done, 5));
const show = () => console.log([requests.splice(0).join(), '|', page.location.hash || 'no hash', '|', [...stored].join(' '), '|',
  page.elements.demo.hidden ? 'no users' : page.elements['demo-user'].options.map((o) => o.text).join(), '|', page.elements['demo-locked'].hidden ? '' : 'hint'].join(' ').trimEnd());
`
	out, err := exec.CommandContext(t.Context(), node, "-e", harness+"(async () => {"+steps+"})();").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestSecretMovesFromTheAddressToAHeader(t *testing.T) {
	for _, test := range []struct {
		name, steps string
		want        string // a line for each show: requests | hash | storage | users | hint
	}{
		{
			"kept for a reload, and not in the address", `await open('#demo=right'); show(); await open(''); show();`,
			"/demo/tokens Bearer right | no hash | parley.demo,right parley.room, | api-gateway:eve,twitch:1 |\n" +
				"/demo/tokens Bearer right | no hash | parley.demo,right parley.room, | api-gateway:eve,twitch:1 |",
		},
		{
			"address without the secret", `await open(''); show();`,
			"/demo/tokens none | no hash | parley.room, | no users | hint",
		},
		{
			"address of an earlier start", `await open('#demo=old'); show(); await open(''); show();`,
			"/demo/tokens Bearer old | no hash | parley.room, | no users | hint\n" +
				"/demo/tokens none | no hash | parley.room, | no users | hint",
		},
		{
			"pasted into the open page", `await open(''); page.location.hash = '#demo=right'; await page.listeners.hashchange(); requests.shift(); show();`,
			"/demo/tokens Bearer right | no hash | parley.room, parley.demo,right | api-gateway:eve,twitch:1 |",
		},
		{
			"another fragment", `await open('#main'); await page.listeners.hashchange(); show();`,
			"/demo/tokens none | #main | parley.room, | no users | hint",
		},
		{
			"a gateway in the cloud", `secret = ''; await open(''); show();`,
			"/demo/tokens none | no hash | parley.room, | no users |",
		},
	} {
		if got := runScript(t, test.steps); got != test.want {
			t.Errorf("%s:\n%s\nwant:\n%s", test.name, got, test.want)
		}
	}
}

func TestPageLeavesARefusedRoom(t *testing.T) {
	got := runScript(t, `await open('');
const { script, elements } = page, look = (name) => elements[name].textContent || 'nothing';
elements.room.value = 'twitch:bruno';
elements['room-form'].onsubmit({ preventDefault() {} });
console.log(look('chat-title'));
script.receive({ type: 'chat.error', payload: { id: 'room', code: 'bad_room', message: 'no' } });
console.log(look('chat-title'), '|', elements.room.value, '|', stored.get('parley.room') || 'no room', '|', look('alert'));
script.receive({ type: 'room.joined', payload: { room: 'lobby' } });
console.log(look('alert'));`)
	want := "Room twitch:bruno\nJust you and the bot | twitch:bruno | no room | bad_room: no\nnothing"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
