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

// Sessions of the gateway: identify, resume and dispatch, see
// https://discord.com/developers/docs/events/gateway#connections

// Intents say which events a session wants.
// https://discord.com/developers/docs/events/gateway#list-of-intents
type Intents uint64

// The intents that mean something here.
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
	// knownIntents are all that Discord has.
	knownIntents Intents = 1<<17 - 1 | 1<<20 | 1<<21 | 1<<24 | 1<<25
)

// session is a bot's stream of events, which outlives its connections.
type session struct {
	id       string
	bot      *account
	intents  Intents
	shard    [2]int // id and number
	seq      int
	events   []event // the last of them, for a resume
	conn     *gatewayConn
	detached time.Time // since when there is no connection
}

// event is one dispatch.
type event struct {
	seq  int
	data []byte
}

// maxReplay is how many events are kept for a resume.
const maxReplay = 1 << 13

// serves reports whether events of a guild are the session's: its bot is there,
// and the guild in its shard.
// https://discord.com/developers/docs/events/gateway#sharding
func (ss *session) serves(g *guild) bool {
	return g.members[ss.bot.ID] != nil && int(number(g.ID)>>22%uint64(ss.shard[1])) == ss.shard[0]
}

// has is serves for a session that asked for these events.
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
		panic(err) // only maps, strings and numbers go in
	}
	return b
}

// dispatch tells every session what about gives for it; nil is nothing.
func (s *Server) dispatch(kind string, about func(*session) any) {
	for _, ss := range s.sessions {
		if d := about(ss); d != nil {
			s.send(ss, kind, d)
		}
	}
}

// send tells a session one event, unless a fault is in the way.
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
		// All sessions end and the token is reset.
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

// stripBotPrefix is a token without its type, which the gateway accepts too.
func stripBotPrefix(token string) string { return strings.TrimPrefix(token, "Bot ") }

type resume struct {
	Token     string `json:"token"`
	SessionID string `json:"session_id"`
	Seq       *int   `json:"seq"`
}

// resume goes on with a session on the connection.
// https://discord.com/developers/docs/events/gateway#resuming
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
	// The session goes on only if it kept all that is to be told again.
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

// detach leaves a session without its connection.
func (s *Server) detach(c *gatewayConn) {
	if ss := c.session; ss != nil {
		c.session, ss.conn, ss.detached = nil, nil, s.now()
	}
}

// end forgets a session.
func (s *Server) end(ss *session) { delete(s.sessions, ss.id) }

// expire ends the sessions that can't be resumed any more.
func (s *Server) expire() {
	for _, ss := range s.sessions {
		if ss.conn == nil && s.now().Sub(ss.detached) > s.options.timing.Resume {
			s.end(ss)
		}
	}
}

// Session is one of the gateway's.
type Session struct {
	ID    string
	BotID string
	// Connected is false while it waits to be resumed.
	Connected bool
	// Seq is the sequence number of its last event.
	Seq     int
	Intents Intents
	// Shard is its number and how many there are.
	Shard [2]int
}

// Sessions are those that are connected or can be resumed, of a bot, or of all
// where botID is empty.
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

// Connected is how many sessions of a bot, or of all where botID is empty, have
// a connection.
func (s *Server) Connected(botID string) int {
	n := 0
	for _, ss := range s.Sessions(botID) {
		if ss.Connected {
			n++
		}
	}
	return n
}
