package discord

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"parley.internal/emulator/fake"
)

// Sessions of the gateway (identify, resume and dispatch):
// https://discord.com/developers/docs/events/gateway#connections

// Intents selects the events of a session. https://discord.com/developers/docs/events/gateway#list-of-intents
type Intents uint64

// The supported intents.
const (
	IntentGuilds          Intents = 1 << 0
	IntentGuildMembers    Intents = 1 << 1 // privileged
	IntentGuildModeration Intents = 1 << 2
	IntentGuildPresences  Intents = 1 << 8 // privileged
	IntentGuildMessages   Intents = 1 << 9
	IntentDirectMessages  Intents = 1 << 12
	IntentMessageContent  Intents = 1 << 15 // privileged
)

const (
	privilegedIntents = IntentGuildMembers | IntentGuildPresences | IntentMessageContent
	// knownIntents are all intents of Discord.
	knownIntents Intents = 1<<17 - 1 | 1<<20 | 1<<21 | 1<<24 | 1<<25
)

// session is a bot's stream of events. A session outlives its connections.
type session struct {
	id       string
	bot      *account
	intents  Intents
	shard    [2]int // id and count
	seq      int
	events   []event // latest events, for a resume
	conn     *gatewayConn
	detached time.Time // time of the disconnection
}

// event is a dispatched event.
type event struct {
	seq  int
	data []byte
}

// maxReplay is the largest number of stored events for a resume.
const maxReplay = 1 << 13

// serves reports whether the session gets events of a guild: the bot is a member, and the guild belongs to the shard.
// https://discord.com/developers/docs/events/gateway#sharding
func (ss *session) serves(g *guild) bool {
	return g.members[ss.bot.ID] != nil && int(number(g.ID)>>22%uint64(ss.shard[1])) == ss.shard[0]
}

// has reports whether the session gets events of a guild and has all intents of i.
func (ss *session) has(i Intents, g *guild) bool { return ss.intents&i == i && ss.serves(g) }

// payload is a message of the gateway.
// https://discord.com/developers/docs/events/gateway-events#payload-structure
type payload struct {
	Op   int     `json:"op"`
	Data any     `json:"d"`
	Seq  *int    `json:"s"`
	Type *string `json:"t"`
}

func encode(p payload) []byte {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // the payload has only maps, strings and numbers
	}
	return b
}

// dispatch sends an event to every session. about returns the data for a session, or nil for no event.
func (s *Server) dispatch(kind string, about func(*session) any) {
	for _, ss := range s.sessions {
		if d := about(ss); d != nil {
			s.send(ss, kind, d)
		}
	}
}

// send sends an event to a session, unless a fault prevents it.
func (s *Server) send(ss *session, kind string, d any) {
	f := s.dispatchFault(ss, kind)
	if f != nil && f.Lost {
		return
	}
	ss.seq++
	seq := ss.seq
	e := event{seq, encode(payload{Op: opDispatch, Data: d, Seq: &seq, Type: &kind})}
	ss.events = append(ss.events, e)
	if len(ss.events) > maxReplay {
		ss.events = slices.Delete(ss.events, 0, len(ss.events)-maxReplay)
	}
	if ss.conn == nil {
		return
	}
	var delay time.Duration
	if f != nil {
		delay = f.Delay
	}
	ss.conn.Push(frame{e.data, delay})
	if f != nil && f.Twice {
		ss.conn.Push(frame{data: e.data})
	}
}

type identify struct {
	Token    string         `json:"token"`
	Compress bool           `json:"compress"`
	Shard    []int          `json:"shard"`
	Intents  *Intents       `json:"intents"`
	Props    map[string]any `json:"properties"`
}

// identify starts a session on the connection.
// https://discord.com/developers/docs/events/gateway-events#identify
func (s *Server) identify(c *gatewayConn, data json.RawMessage) {
	var id identify
	if json.Unmarshal(data, &id) != nil || id.Props == nil {
		c.Close(CloseDecodeError)
		return
	}
	bot := s.tokens[stripBotPrefix(id.Token)]
	if bot == nil {
		c.Close(CloseAuthenticationFailed)
		return
	}
	shard := [2]int{0, 1}
	if id.Shard != nil {
		if len(id.Shard) != 2 || id.Shard[0] < 0 || id.Shard[0] >= id.Shard[1] {
			c.Close(CloseInvalidShard)
			return
		}
		shard = [2]int(id.Shard)
	}
	switch {
	case id.Intents == nil || *id.Intents&^knownIntents != 0:
		c.Close(CloseInvalidIntents)
		return
	case *id.Intents&privilegedIntents&^bot.privileged != 0:
		c.Close(CloseDisallowedIntents)
		return
	}
	now, limits := s.now(), s.options.limits
	if !bot.identifies.Take(now, limits.Identifies) {
		c.invalid(false)
		return
	}
	if !bot.starts.Take(now, limits.Sessions) {
		// Above the limit, all sessions end and the token is reset.
		s.resetToken(bot)
		c.Close(CloseAuthenticationFailed)
		return
	}
	s.expire()
	ss := &session{id: fake.Secret(16), bot: bot, intents: *id.Intents, shard: shard, conn: c}
	s.sessions[ss.id] = ss
	c.session = ss
	c.compress.Store(id.Compress && c.stream == nil)
	var mine []*guild
	unavailable := []any{}
	for _, gid := range slices.SortedFunc(maps.Keys(s.guilds), older) {
		if g := s.guilds[gid]; ss.serves(g) {
			mine = append(mine, g)
			unavailable = append(unavailable, map[string]any{"id": g.ID, "unavailable": true})
		}
	}
	ready := map[string]any{
		"v":                  c.version,
		"user":               bot.json(),
		"guilds":             unavailable,
		"private_channels":   []any{},
		"session_id":         ss.id,
		"resume_gateway_url": s.GatewayURL(),
		"application":        map[string]any{"id": bot.ID, "flags": 0},
	}
	if id.Shard != nil {
		ready["shard"] = shard
	}
	s.send(ss, "READY", ready)
	if ss.intents&IntentGuilds != 0 {
		for _, g := range mine {
			s.send(ss, "GUILD_CREATE", s.guildCreate(ss, g))
		}
	}
}

// stripBotPrefix removes the token type, which the gateway also accepts.
func stripBotPrefix(token string) string { return strings.TrimPrefix(token, "Bot ") }

type resume struct {
	Token     string `json:"token"`
	SessionID string `json:"session_id"`
	Seq       *int   `json:"seq"`
}

// resume resumes a session on the connection. https://discord.com/developers/docs/events/gateway#resuming
func (s *Server) resume(c *gatewayConn, data json.RawMessage) {
	var re resume
	if json.Unmarshal(data, &re) != nil || re.Seq == nil {
		c.Close(CloseDecodeError)
		return
	}
	bot := s.tokens[stripBotPrefix(re.Token)]
	if bot == nil {
		c.Close(CloseAuthenticationFailed)
		return
	}
	s.expire()
	ss := s.sessions[re.SessionID]
	if ss == nil || ss.bot != bot {
		c.invalid(false)
		return
	}
	if *re.Seq < 0 || *re.Seq > ss.seq {
		s.end(ss)
		c.Close(CloseInvalidSeq)
		return
	}
	// The session can resume only if all missed events are stored.
	if first := ss.seq - len(ss.events) + 1; *re.Seq < first-1 {
		s.end(ss)
		c.invalid(false)
		return
	}
	if old := ss.conn; old != nil {
		old.session = nil
		old.cancel()
	}
	ss.conn, c.session = c, ss
	for _, e := range ss.events {
		if e.seq > *re.Seq {
			c.Push(frame{data: e.data})
		}
	}
	s.send(ss, "RESUMED", map[string]any{})
}

// detach removes the connection from its session.
func (s *Server) detach(c *gatewayConn) {
	if ss := c.session; ss != nil {
		c.session, ss.conn, ss.detached = nil, nil, s.now()
	}
}

// end removes a session.
func (s *Server) end(ss *session) { delete(s.sessions, ss.id) }

// expire ends sessions past the time to resume.
func (s *Server) expire() {
	for _, ss := range s.sessions {
		if ss.conn == nil && s.now().Sub(ss.detached) > s.options.timing.Resume {
			s.end(ss)
		}
	}
}

// Session describes a gateway session.
type Session struct {
	ID    string
	BotID string
	// Connected is false while the session waits for a resume.
	Connected bool
	// Seq is the sequence number of the last event.
	Seq     int
	Intents Intents
	// Shard is the shard's number and the number of shards.
	Shard [2]int
}

// Sessions returns the connected and resumable sessions of a bot, or of all bots if botID is empty.
func (s *Server) Sessions(botID string) []Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	var all []Session
	for _, ss := range s.sessions {
		if botID == "" || botID == ss.bot.ID {
			all = append(all, Session{ss.id, ss.bot.ID, ss.conn != nil, ss.seq, ss.intents, ss.shard})
		}
	}
	slices.SortFunc(all, func(a, b Session) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Connected returns the number of connected sessions of a bot, or of all bots if botID is empty.
func (s *Server) Connected(botID string) int {
	n := 0
	for _, ss := range s.Sessions(botID) {
		if ss.Connected {
			n++
		}
	}
	return n
}
