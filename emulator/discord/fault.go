package discord

import (
	"math"
	"net/http"
	"strconv"
	"time"

	"parley.internal/emulator/fake"
	"parley.internal/shared/retry"
)

// DispatchFault is something that goes wrong with an event of the gateway.
type DispatchFault struct {
	// BotID says whose event, and Type which, such as "MESSAGE_CREATE"; empty is
	// any.
	BotID, Type string
	// Skip is how many events pass first; Times is how many fail then, 1 where
	// it is 0.
	Skip, Times int
	// Lost keeps the event from the session for good: it has no sequence number
	// and no resume brings it back.
	Lost bool
	// Delay keeps the event, and all behind it on the connection, back for as
	// long.
	Delay time.Duration
	// Twice sends it two times with the same sequence number.
	Twice bool
}

// HTTPFault is something that goes wrong with a request to the HTTP API, or, with
// the Path "/", with the opening of a gateway connection.
type HTTPFault = fake.HTTPFault

// Request is one that reached the HTTP API.
type Request = fake.Request

// FailDispatch makes events of the gateway go wrong. Faults apply in the order
// in which they were given, one at a time.
func (s *Server) FailDispatch(f DispatchFault) {
	s.lock()
	defer s.unlock()
	s.faults.Add(f, f.Skip, f.Times)
}

// ClearFaults forgets what is still to go wrong.
func (s *Server) ClearFaults() {
	s.Core.ClearFaults()
	s.lock()
	defer s.unlock()
	s.faults = fake.Faults[DispatchFault]{}
}

// dispatchFault is the fault that this event meets, or nil.
func (s *Server) dispatchFault(ss *session, kind string) *DispatchFault {
	return s.faults.Next(func(f *DispatchFault) bool {
		return (f.BotID == "" || f.BotID == ss.bot.ID) && (f.Type == "" || f.Type == kind)
	})
}

// refuseFault answers as Discord does where a request fails for a fault.
func refuseFault(w http.ResponseWriter, f HTTPFault, why string) {
	switch f.Status {
	case http.StatusTooManyRequests:
		writeLimited(w, f.RetryAfter, f.Global)
	case http.StatusRequestEntityTooLarge:
		writeError(w, refuse(f.Status, 40005, "Request entity too large"))
	default:
		writeError(w, refuse(f.Status, 0, why))
	}
}

// writeLimited tells a client to wait.
// https://discord.com/developers/docs/topics/rate-limits#exceeding-a-rate-limit
func writeLimited(w http.ResponseWriter, wait time.Duration, global bool) {
	h := w.Header()
	// Rounded up, so that who waits for it finds room.
	h.Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	h.Set("X-RateLimit-Scope", "user")
	if global {
		h.Set("X-RateLimit-Scope", "global")
		h.Set("X-RateLimit-Global", "true")
	}
	writeJSON(w, http.StatusTooManyRequests, map[string]any{
		"message":     "You are being rate limited.",
		"retry_after": milliseconds(wait),
		"global":      global,
	})
}

// milliseconds is d in seconds, up to the next millisecond.
func milliseconds(d time.Duration) float64 {
	return math.Ceil(d.Seconds()*1000) / 1000
}

// DropGateway ends the gateway connections of a bot without a word, or all where
// botID is empty, and returns how many there were. The sessions can be resumed.
func (s *Server) DropGateway(botID string) int {
	return s.forEachConn(botID, func(c *gatewayConn) { c.cancel() })
}

// CloseGateway closes the gateway connections of a bot, or all where botID is
// empty, with one of the Close constants, and returns how many there were. Codes
// after which Discord wants a new session end the session.
func (s *Server) CloseGateway(botID string, code int) int {
	return s.forEachConn(botID, func(c *gatewayConn) {
		switch code {
		case CloseNotAuthenticated, CloseAuthenticationFailed, CloseInvalidSeq, CloseSessionTimedOut,
			CloseInvalidShard, CloseShardingRequired, CloseInvalidVersion, CloseInvalidIntents, CloseDisallowedIntents:
			s.end(c.session)
			s.detach(c)
		}
		c.Close(code)
	})
}

// ReconnectGateway asks the gateway connections of a bot, or all where botID is
// empty, to reconnect and resume, and closes those that are kept too long. It
// returns how many there were.
// https://discord.com/developers/docs/events/gateway-events#reconnect
func (s *Server) ReconnectGateway(botID string) int {
	return s.forEachConn(botID, func(c *gatewayConn) {
		c.Push(frame{data: encode(payload{Op: opReconnect})})
		s.tasks.Go(func() {
			if retry.Sleep(s.tasks.Context(), s.options.timing.Reconnect) == nil {
				c.Close(CloseUnknownError)
			}
		})
	})
}

// InvalidateSessions ends the connected sessions of a bot, or all where botID is
// empty, with an Invalid Session, and returns how many there were. Where they
// are resumable, they go on once they are resumed on another connection.
// https://discord.com/developers/docs/events/gateway-events#invalid-session
func (s *Server) InvalidateSessions(botID string, resumable bool) int {
	return s.forEachConn(botID, func(c *gatewayConn) {
		if !resumable {
			s.end(c.session)
		}
		s.detach(c)
		c.invalid(resumable)
	})
}

// ForgetSessions ends the sessions of a bot, or all where botID is empty, without
// a word, and its connections too: whoever resumes gets an Invalid Session. It
// returns how many there were.
func (s *Server) ForgetSessions(botID string) int {
	s.lock()
	defer s.unlock()
	n := 0
	for _, ss := range s.sessions {
		if botID != "" && botID != ss.bot.ID {
			continue
		}
		s.end(ss)
		if ss.conn != nil {
			ss.conn.cancel()
		}
		n++
	}
	return n
}

// StopACKs keeps back the heartbeat ACKs of a bot's connections, or of all where
// botID is empty, and returns how many there were. Connections to come get
// theirs.
func (s *Server) StopACKs(botID string) int {
	return s.forEachConn(botID, func(c *gatewayConn) { c.mute = true })
}

// RequestHeartbeat asks the connections of a bot, or all where botID is empty, for
// a heartbeat at once, and returns how many there were.
// https://discord.com/developers/docs/events/gateway#heartbeat-interval-heartbeat-requests
func (s *Server) RequestHeartbeat(botID string) int {
	return s.forEachConn(botID, func(c *gatewayConn) { c.Push(frame{data: encode(payload{Op: opHeartbeat})}) })
}

func (s *Server) forEachConn(botID string, f func(*gatewayConn)) int {
	s.lock()
	defer s.unlock()
	n := 0
	for c := range s.conns {
		if c.session != nil && (botID == "" || botID == c.session.bot.ID) {
			f(c)
			n++
		}
	}
	return n
}
