package discord_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/bwmarrin/discordgo"
	"github.com/coder/websocket"

	"parley.internal/emulator/discord"
)

// wire is a gateway connection without a client library.
type wire struct {
	*websocket.Conn
	t   *testing.T
	ctx context.Context
}

type packet struct {
	Op   int             `json:"op"`
	Data json.RawMessage `json:"d"`
	Seq  int             `json:"s"`
	Type string          `json:"t"`
}

func (w *world) dial(query string) *wire {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	w.t.Cleanup(cancel)
	conn, _, err := websocket.Dial(ctx, w.GatewayURL()+"/"+query, nil)
	w.must(err)
	w.t.Cleanup(func() { conn.CloseNow() })
	conn.SetReadLimit(1 << 20)
	return &wire{Conn: conn, t: w.t, ctx: ctx}
}

// hello connects and reads the Hello.
func (w *world) hello() *wire {
	w.t.Helper()
	c := w.dial("?v=10&encoding=json")
	if p := c.read(); p.Op != 10 {
		w.t.Fatalf("the first message has op %d; want Hello", p.Op)
	}
	return c
}

// identified connects and starts a session. It returns the connection and the session's id.
func (w *world) identified(intents discord.Intents) (*wire, string) {
	w.t.Helper()
	c := w.hello()
	c.send(2, w.identity(intents))
	var ready struct {
		SessionID string `json:"session_id"`
	}
	p := c.read()
	if p.Type != "READY" {
		w.t.Fatalf("received %+v after Identify", p)
	}
	w.must(json.Unmarshal(p.Data, &ready))
	return c, ready.SessionID
}

func (w *world) identity(intents discord.Intents) object {
	return object{"token": w.bot.Token, "intents": intents, "properties": object{"os": "linux"}}
}

func (c *wire) send(op int, d any) {
	c.t.Helper()
	b, err := json.Marshal(object{"op": op, "d": d})
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(string(b))
}

func (c *wire) write(text string) {
	c.t.Helper()
	if err := c.Write(c.ctx, websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *wire) read() packet {
	c.t.Helper()
	kind, b, err := c.Read(c.ctx)
	if err != nil {
		c.t.Fatalf("reading: %v", err)
	}
	if kind == websocket.MessageBinary {
		z, err := zlib.NewReader(bytes.NewReader(b))
		if err != nil {
			c.t.Fatal(err)
		}
		if b, err = io.ReadAll(z); err != nil {
			c.t.Fatal(err)
		}
	}
	var p packet
	if err := json.Unmarshal(b, &p); err != nil {
		c.t.Fatalf("%s: %v", b, err)
	}
	return p
}

// event reads until an event of this type.
func (c *wire) event(kind string) packet {
	c.t.Helper()
	for {
		if p := c.read(); p.Type == kind {
			return p
		}
	}
}

// closed waits for the end of the connection and returns its close code.
func (c *wire) closed() int {
	c.t.Helper()
	for {
		if _, _, err := c.Read(c.ctx); err != nil {
			return int(websocket.CloseStatus(err))
		}
	}
}

func TestDiscordgoGetsReadyAndItsGuilds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	mods := w.role("mods", discord.BanMembers)
	w.must(w.SetRoles(w.guild.ID, w.bot.ID, mods.ID))
	c := w.connect(allIntents)
	ready := next(t, c.ready)
	if ready.User.ID != w.bot.ID || ready.SessionID == "" || len(ready.Guilds) != 1 || !ready.Guilds[0].Unavailable {
		t.Errorf("READY has the user %v, the session %q and the guilds %v", ready.User, ready.SessionID, ready.Guilds)
	}
	var g discordgo.Guild
	w.must(json.Unmarshal(c.event(t, "GUILD_CREATE").RawData, &g))
	if g.OwnerID != w.owner.ID || len(g.Channels) != 1 || len(g.Roles) != 2 || g.MemberCount != 3 {
		t.Errorf("GUILD_CREATE has %+v", g)
	}
	// A session without the presences intent gets only the bot as a member.
	if len(g.Members) != 1 || g.Members[0].User.ID != w.bot.ID || len(g.Members[0].Roles) != 1 || g.Members[0].Roles[0] != mods.ID {
		t.Errorf("the members are %+v", g.Members)
	}
}

func TestDiscordgoSendsAndReceivesMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	c := w.connect(allIntents)
	mods := w.role("mods", 0)
	w.must(w.SetRoles(w.guild.ID, w.viewer.ID, mods.ID))
	said := w.say(w.viewer.ID, "hello <@"+w.bot.ID+">")
	got := next(t, c.created)
	if got.ID != said.ID || got.Content != said.Text || got.GuildID != w.guild.ID || got.Author.ID != w.viewer.ID {
		t.Errorf("got %+v of %v", got.Message, got.Author)
	}
	if got.Member == nil || len(got.Member.Roles) != 1 || got.Member.Roles[0] != mods.ID {
		t.Errorf("the author is the member %+v", got.Member)
	}
	if len(got.Mentions) != 1 || got.Mentions[0].ID != w.bot.ID {
		t.Errorf("the mentions are %v", got.Mentions)
	}
	sent, err := c.ChannelMessageSendReply(w.channel.ID, "hi", got.Reference())
	w.must(err)
	if sent.Type != discordgo.MessageTypeReply || sent.ReferencedMessage == nil || sent.ReferencedMessage.ID != said.ID {
		t.Errorf("the answer is %+v", sent)
	}
	own := next(t, c.created)
	if own.ID != sent.ID || own.Author.ID != w.bot.ID || !own.Author.Bot {
		t.Errorf("the bot received %+v about its own message", own.Message)
	}
	if last := w.last(); last.Text != "hi" || last.ReplyTo != said.ID || last.Via != discord.ViaAPI {
		t.Errorf("the channel has %+v", last)
	}
}

func TestMessageAndMemberEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	mods := w.role("mods", discord.BanMembers)
	w.must(w.SetRoles(w.guild.ID, w.bot.ID, mods.ID))
	c := w.connect(allIntents)
	m := w.say(w.viewer.ID, "one")
	two, three := w.say(w.viewer.ID, "two"), w.say(w.viewer.ID, "three")
	for _, step := range []struct {
		kind string
		do   func() error
		want string // part of the event
	}{
		{"MESSAGE_UPDATE", func() error { _, err := w.Edit(w.channel.ID, m.ID, "changed"); return err }, `"content":"changed"`},
		{"MESSAGE_DELETE", func() error { return w.Delete(w.channel.ID, m.ID) }, `"id":"` + m.ID + `"`},
		{"MESSAGE_DELETE_BULK", func() error { return w.Delete(w.channel.ID, two.ID, three.ID) }, `"ids":["` + two.ID},
		{"GUILD_MEMBER_UPDATE", func() error { return w.SetRoles(w.guild.ID, w.viewer.ID, mods.ID) }, `"roles":["` + mods.ID},
		{"GUILD_MEMBER_UPDATE", func() error { return w.SetNick(w.guild.ID, w.viewer.ID, "Vee") }, `"nick":"Vee"`},
		{"GUILD_MEMBER_ADD", func() error { _, err := w.AddMember(w.guild.ID, w.user("guest").ID); return err }, `"username":"guest"`},
		{"GUILD_ROLE_CREATE", func() error { w.role("new", 0); return nil }, `"name":"new"`},
		{"CHANNEL_CREATE", func() error {
			_, err := w.AddChannel(discord.Channel{GuildID: w.guild.ID, Name: "second"})
			return err
		}, `"name":"second"`},
		{"GUILD_BAN_ADD", func() error { return w.Ban(w.guild.ID, w.viewer.ID, "spam") }, w.viewer.ID},
		{"GUILD_ROLE_DELETE", func() error { return w.RemoveRole(w.guild.ID, mods.ID) }, mods.ID},
		{"GUILD_DELETE", func() error { return w.RemoveMember(w.guild.ID, w.bot.ID) }, w.guild.ID},
		{"GUILD_CREATE", func() error { _, err := w.AddMember(w.guild.ID, w.bot.ID); return err }, `"name":"Home"`},
	} {
		// Earlier events do not matter.
		for len(c.others) > 0 {
			<-c.others
		}
		w.must(step.do())
		if e := c.event(t, step.kind); !strings.Contains(string(e.RawData), step.want) {
			t.Errorf("%s is %s; want %s in it", step.kind, e.RawData, step.want)
		}
	}
}

func TestResumeAfterADropReplaysAllEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	c := w.connect(allIntents)
	w.say(w.viewer.ID, "before")
	next(t, c.created)
	if n := w.DropGateway(""); n != 1 {
		t.Fatalf("%d connections were dropped", n)
	}
	w.await("the connection ends", func() bool { return w.Connected("") == 0 })
	const n = 20
	for i := range n {
		w.say(w.viewer.ID, fmt.Sprint("meanwhile ", i))
	}
	for i := range n {
		if got := next(t, c.created); got.Content != fmt.Sprint("meanwhile ", i) {
			t.Fatalf("message %d is %q", i, got.Content)
		}
	}
	c.event(t, "RESUMED")
	w.say(w.viewer.ID, "after")
	if got := next(t, c.created); got.Content != "after" {
		t.Errorf("received %q after the resume", got.Content)
	}
	if all := w.Sessions(w.bot.ID); len(all) != 1 {
		t.Errorf("%d sessions; want only the resumed session", len(all))
	}
}

func TestDiscordgoResumesAfterAReconnectRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	c := w.connect(allIntents)
	next(t, c.ready)
	w.ReconnectGateway(w.bot.ID)
	w.say(w.viewer.ID, "meanwhile")
	if got := next(t, c.created); got.Content != "meanwhile" {
		t.Errorf("got %q", got.Content)
	}
	c.event(t, "RESUMED")
}

func TestDiscordgoStartsANewSessionAfterInvalidSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	c := w.connect(allIntents)
	first := next(t, c.ready)
	w.InvalidateSessions(w.bot.ID, false)
	second := next(t, c.ready)
	if first.SessionID == second.SessionID {
		t.Error("the session was not replaced")
	}
	w.say(w.viewer.ID, "new")
	if got := next(t, c.created); got.Content != "new" {
		t.Errorf("got %q", got.Content)
	}
}

func TestResumeOnTheWire(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	const intents = discord.IntentGuildMessages | discord.IntentMessageContent
	start := func() (string, int) {
		c, id := w.identified(intents)
		w.say(w.viewer.ID, "one")
		seq := c.event("MESSAGE_CREATE").Seq
		w.say(w.viewer.ID, "two")
		w.say(w.viewer.ID, "three")
		c.CloseNow()
		w.await("the connection ends", func() bool { return w.Connected("") == 0 })
		return id, seq
	}
	resume := func(id string, seq int) *wire {
		c := w.hello()
		c.send(6, object{"token": "Bot " + w.bot.Token, "session_id": id, "seq": seq})
		return c
	}

	id, seq := start()
	c := resume(id, seq)
	for i, want := range []string{"MESSAGE_CREATE", "MESSAGE_CREATE", "RESUMED"} {
		if p := c.read(); p.Type != want || p.Seq != seq+i+1 {
			t.Errorf("event %d is %s with seq %d", i, p.Type, p.Seq)
		}
	}
	// A second connection resumes the session from its own sequence number.
	other := resume(id, seq)
	if p := other.read(); p.Type != "MESSAGE_CREATE" || p.Seq != seq+1 {
		t.Errorf("the second resume begins with %s and seq %d", p.Type, p.Seq)
	}
	c.closed()
	if n := w.Connected(""); n != 1 {
		t.Errorf("%d sessions are connected", n)
	}

	if code := resume(id, 1000).closed(); code != discord.CloseInvalidSeq {
		t.Errorf("close code %d after a sequence number not sent yet", code)
	}

	id, seq = start()
	w.clock.Advance(time.Hour)
	c = resume(id, seq)
	if p := c.read(); p.Op != 9 || string(p.Data) != "false" {
		t.Errorf("received %+v after a late resume", p)
	}
	// The client may identify on the same connection.
	c.send(2, w.identity(intents))
	c.event("READY")

	// A client that closes with 1000 ends its session.
	id = w.Sessions("")[0].ID
	c.Close(websocket.StatusNormalClosure, "")
	w.await("the session ends", func() bool { return len(w.Sessions("")) == 0 })
	if p := resume(id, 1).read(); p.Op != 9 {
		t.Errorf("received %+v after a resume of a session closed with 1000", p)
	}
}

func TestGatewayRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	with := func(change func(object)) object {
		id := w.identity(discord.IntentGuildMessages)
		change(id)
		return id
	}
	for name, tt := range map[string]struct {
		op   int
		data any
		want int
	}{
		"a wrong token":            {2, with(func(o object) { o["token"] = "no" }), discord.CloseAuthenticationFailed},
		"no intents":               {2, with(func(o object) { delete(o, "intents") }), discord.CloseInvalidIntents},
		"intents that don't exist": {2, with(func(o object) { o["intents"] = 1 << 40 }), discord.CloseInvalidIntents},
		"a privileged intent":      {2, with(func(o object) { o["intents"] = discord.IntentGuildPresences }), discord.CloseDisallowedIntents},
		"a shard of none":          {2, with(func(o object) { o["shard"] = []int{2, 2} }), discord.CloseInvalidShard},
		"no properties":            {2, with(func(o object) { delete(o, "properties") }), discord.CloseDecodeError},
		"an unknown opcode":        {77, nil, discord.CloseUnknownOpcode},
		"a command too soon":       {3, object{}, discord.CloseNotAuthenticated},
		"a payload too large":      {3, strings.Repeat("x", 5000), discord.CloseDecodeError},
		"a resume with no token":   {6, object{"session_id": "x", "seq": 1}, discord.CloseAuthenticationFailed},
	} {
		t.Run(name, func(t *testing.T) {
			c := w.hello()
			c.send(tt.op, tt.data)
			if code := c.closed(); code != tt.want {
				t.Errorf("close code %d; want %d", code, tt.want)
			}
		})
	}
	c := w.hello()
	c.write("{")
	if code := c.closed(); code != discord.CloseDecodeError {
		t.Errorf("close code %d after a message other than JSON", code)
	}
	c, _ = w.identified(0)
	c.send(2, w.identity(0))
	if code := c.closed(); code != discord.CloseAlreadyAuthenticated {
		t.Errorf("close code %d after a second identify", code)
	}
	if code := w.dial("?v=6").closed(); code != discord.CloseInvalidVersion {
		t.Errorf("close code %d for version 6", code)
	}
}

func TestMessageContentNeedsItsIntent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	c, _ := w.identified(discord.IntentGuildMessages | discord.IntentDirectMessages)
	content := func() string {
		var m struct{ Content string }
		w.must(json.Unmarshal(c.event("MESSAGE_CREATE").Data, &m))
		return m.Content
	}
	w.say(w.viewer.ID, "secret")
	if got := content(); got != "" {
		t.Errorf("the bot can read %q in the guild", got)
	}
	w.say(w.viewer.ID, "<@"+w.bot.ID+"> hello")
	if got := content(); !strings.HasSuffix(got, "hello") {
		t.Errorf("the bot can read %q where it is mentioned", got)
	}
	w.say(w.bot.ID, "own")
	if got := content(); got != "own" {
		t.Errorf("the bot can read %q of its own message", got)
	}
	_, err := w.SayDM(w.viewer.ID, w.bot.ID, "direct")
	w.must(err)
	if got := content(); got != "direct" {
		t.Errorf("the bot can read %q in direct messages", got)
	}
}

func TestIdentifyLimits(t *testing.T) {
	t.Parallel()
	limits := discord.DefaultLimits()
	limits.Sessions = discord.Window{N: 2, Per: 24 * time.Hour}
	w := newWorld(t, discord.WithLimits(limits))
	w.identified(0)
	c := w.hello()
	c.send(2, w.identity(0))
	if p := c.read(); p.Op != 9 || string(p.Data) != "false" {
		t.Errorf("received %+v after a second identify within 5 s", p)
	}
	w.clock.Advance(5 * time.Second)
	c.send(2, w.identity(0))
	c.event("READY")
	bot := w.call("GET", "/gateway/bot", nil)
	left := bot.body["session_start_limit"].(map[string]any)
	if left["total"] != 2.0 || left["remaining"] != 0.0 || left["max_concurrency"] != 1.0 {
		t.Errorf("the session_start_limit is %v", left)
	}
	w.clock.Advance(5 * time.Second)
	over := w.hello()
	over.send(2, w.identity(0))
	for _, c := range []*wire{over, c} {
		if code := c.closed(); code != discord.CloseAuthenticationFailed {
			t.Errorf("close code %d above the daily limit", code)
		}
	}
	if r := w.call("GET", "/users/@me", nil); r.status != 401 {
		t.Errorf("status %d with the old token", r.status)
	}
}

func TestCommandsAreLimited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.hello()
	for range 121 {
		c.send(1, nil)
	}
	if code := c.closed(); code != discord.CloseRateLimited {
		t.Errorf("closed with %d", code)
	}
}

func TestHeartbeats(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited(), discord.WithTiming(discord.Timing{Heartbeat: time.Second}))
	c, id := w.identified(0)
	c.send(1, 1)
	if p := c.read(); p.Op != 11 {
		t.Errorf("received %+v after a heartbeat", p)
	}
	w.RequestHeartbeat("")
	if p := c.read(); p.Op != 1 {
		t.Errorf("the request for a heartbeat is %+v", p)
	}
	// A client without heartbeats is disconnected, and may resume.
	if code := c.closed(); code != discord.CloseUnknownError {
		t.Errorf("closed with %d", code)
	}
	again := w.hello()
	again.send(6, object{"token": w.bot.Token, "session_id": id, "seq": 1})
	again.event("RESUMED")
}

func TestStopACKsWithholdsHeartbeatACKs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	c, _ := w.identified(discord.IntentGuildMessages)
	w.StopACKs("")
	c.send(1, nil)
	w.say(w.viewer.ID, "hello")
	if p := c.read(); p.Type != "MESSAGE_CREATE" {
		t.Errorf("got %+v", p)
	}
}

func TestCompression(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	c := w.hello()
	id := w.identity(discord.IntentGuilds)
	id["compress"] = true
	c.send(2, id)
	c.event("READY")
	kind, _, err := c.Read(c.ctx)
	w.must(err)
	if kind != websocket.MessageBinary {
		t.Error("GUILD_CREATE is not compressed")
	}

	s := w.dial("?v=10&encoding=json&compress=zlib-stream")
	var all bytes.Buffer
	take := func() []byte {
		kind, b, err := s.Read(s.ctx)
		w.must(err)
		if kind != websocket.MessageBinary || !bytes.HasSuffix(b, []byte{0, 0, 0xff, 0xff}) {
			t.Fatalf("%v %x does not end with a flush", kind, b)
		}
		return b
	}
	all.Write(take())
	s.send(2, w.identity(discord.IntentGuilds))
	all.Write(take())
	all.Write(take())
	z, err := zlib.NewReader(&all)
	w.must(err)
	dec := json.NewDecoder(z)
	for i, want := range []string{"", "READY", "GUILD_CREATE"} {
		var p packet
		w.must(dec.Decode(&p))
		if p.Type != want {
			t.Errorf("message %d is %q; want %q", i, p.Type, want)
		}
	}
}

func TestShards(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	received := make([]int, 2)
	var conns []*wire
	for shard := range 2 {
		c := w.hello()
		id := w.identity(discord.IntentGuildMessages | discord.IntentDirectMessages)
		id["shard"] = []int{shard, 2}
		c.send(2, id)
		c.event("READY")
		conns = append(conns, c)
	}
	w.say(w.viewer.ID, "in the guild")
	_, err := w.SayDM(w.viewer.ID, w.bot.ID, "direct")
	w.must(err)
	for i, c := range conns {
		// The answer to a heartbeat marks the end of the earlier events.
		c.send(1, nil)
		for p := c.read(); p.Op != 11; p = c.read() {
			received[i]++
		}
	}
	if received[0]+received[1] != 2 || received[0] == 0 {
		t.Errorf("the shards received %v", received)
	}
}

func TestRequestGuildMembers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	c, _ := w.identified(discord.IntentGuildMembers)
	for query, want := range map[string]int{"": 3, "VIEW": 1, "nobody": 0} {
		c.send(8, object{"guild_id": w.guild.ID, "query": query, "limit": len(query)})
		var chunk struct{ Members []json.RawMessage }
		w.must(json.Unmarshal(c.event("GUILD_MEMBERS_CHUNK").Data, &chunk))
		if len(chunk.Members) != want {
			t.Errorf("%q returned %d members; want %d", query, len(chunk.Members), want)
		}
	}
	c.send(8, object{"guild_id": w.guild.ID, "user_ids": []string{w.viewer.ID, "1"}, "limit": 0})
	if p := c.event("GUILD_MEMBERS_CHUNK"); !strings.Contains(string(p.Data), `"not_found":["1"]`) {
		t.Errorf("members by id: %s", p.Data)
	}
}

func TestDispatchFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	c, _ := w.identified(discord.IntentGuildMessages | discord.IntentMessageContent)
	w.FailDispatch(discord.DispatchFault{Type: "MESSAGE_CREATE", Skip: 1, Lost: true})
	w.FailDispatch(discord.DispatchFault{Type: "MESSAGE_CREATE", Twice: true, Delay: time.Millisecond})
	for _, text := range []string{"one", "two", "three", "four"} {
		w.say(w.viewer.ID, text)
	}
	var got []string
	for range 4 {
		p := c.event("MESSAGE_CREATE")
		var m struct{ Content string }
		w.must(json.Unmarshal(p.Data, &m))
		got = append(got, fmt.Sprint(m.Content, p.Seq))
	}
	// Events skipped by the first fault meet the second fault.
	if want := "[one2 one2 three3 four4]"; fmt.Sprint(got) != want {
		t.Errorf("got %v", got)
	}
}

func TestCloseGatewaySendsTheCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	for code, sessions := range map[int]int{discord.CloseUnknownError: 1, discord.CloseSessionTimedOut: 0} {
		c, _ := w.identified(0)
		w.CloseGateway(w.bot.ID, code)
		if got := c.closed(); got != code {
			t.Errorf("close code %d; want %d", got, code)
		}
		w.await("the connection ends", func() bool { return w.Connected("") == 0 })
		if n := len(w.Sessions("")); n != sessions {
			t.Errorf("close code %d left %d sessions", code, n)
		}
		w.ForgetSessions("")
	}
}

func TestHTTPFaultRefusesGatewayConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	w.FailHTTP(discord.HTTPFault{Path: "/", Status: 503})
	if _, _, err := websocket.Dial(t.Context(), w.GatewayURL()+"/?v=10", nil); err == nil {
		t.Error("the gateway accepted a connection")
	}
	w.hello()
}
