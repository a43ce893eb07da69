package discord

import (
	"math"
	"net/http"
	"strconv"
	"time"

	"parley.internal/emulator/fake"
	"parley.internal/shared/retry"
)

// DispatchFault describes the failure of a gateway event.
type DispatchFault struct {
	// BotID and Type, such as "MESSAGE_CREATE", select events; empty selects all.
	BotID, Type string
	// Skip is the number of events that pass first. Times is the number of events that fail then; 0 means 1.
	Skip, Times int
	// Lost drops the event for good: the event has no sequence number, and a resume does not repeat it.
	Lost bool
	// Delay delays the event and all following events of the connection.
	Delay time.Duration
	// Twice sends the event twice with the same sequence number.
	Twice bool
}

// HTTPFault describes the failure of a request to the HTTP API, or of the opening of a gateway connection (Path "/").
type HTTPFault = fake.HTTPFault

// Request is a received request to the HTTP API.
type Request = fake.Request

// FailDispatch adds a fault of gateway events. Faults apply in the order of the calls, one per event.
func (s *Server) FailDispatch(f DispatchFault) {
	s.lock()
	defer s.unlock()
	s.faults.Add(f, f.Skip, f.Times)
}

// ClearFaults removes all pending faults.
func (s *Server) ClearFaults() {
	s.Core.ClearFaults()
	s.lock()
	defer s.unlock()
	s.faults = fake.Faults[DispatchFault]{}
}

// dispatchFault returns the fault for an event, or nil.
func (s *Server) dispatchFault(ss *session, kind string) *DispatchFault {
	return s.faults.Next(func(f *DispatchFault) bool {
		return (f.BotID == "" || f.BotID == ss.bot.ID) && (f.Type == "" || f.Type == kind)
	})
}

// refuseFault writes Discord's answer for an injected fault.
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

// writeLimited writes a rate limit error. https://discord.com/developers/docs/topics/rate-limits#exceeding-a-rate-limit
func writeLimited(w http.ResponseWriter, wait time.Duration, global bool) {
	h := w.Header()
	// Rounded up, so that the limit has ended after the wait.
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

// milliseconds returns d in seconds, rounded up to a millisecond.
func milliseconds(d time.Duration) float64 {
	return math.Ceil(d.Seconds()*1000) / 1000
}

// DropGateway drops the gateway connections of a bot, or all if botID is empty, without a close frame. It returns the
// number of connections. The sessions can be resumed.
func (s *Server) DropGateway(botID string) int {
	return s.forEachConn(botID, func(c *gatewayConn) { c.cancel() })
}

// CloseGateway closes the gateway connections of a bot, or all if botID is empty, with one of the Close codes. It
// returns the number of connections. A code after which Discord requires a new session ends the session.
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

// ReconnectGateway asks the gateway connections of a bot, or all if botID is empty, to reconnect and resume, and closes
// connections kept too long. It returns the number of connections.
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

// InvalidateSessions sends Invalid Session to the connected sessions of a bot, or to all if botID is empty, and returns
// the number of sessions. If resumable is true, the sessions can be resumed on another connection; otherwise they end.
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

// ForgetSessions ends the sessions and connections of a bot, or all if botID is empty, without a message. A later
// resume gets Invalid Session. It returns the number of sessions.
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

// StopACKs withholds the heartbeat ACKs of a bot's connections, or of all if botID is empty, and returns the number of
// connections. New connections get ACKs.
func (s *Server) StopACKs(botID string) int {
	return s.forEachConn(botID, func(c *gatewayConn) { c.mute = true })
}

// RequestHeartbeat asks the connections of a bot, or all if botID is empty, for an immediate heartbeat, and returns the
// number of connections. https://discord.com/developers/docs/events/gateway#heartbeat-interval-heartbeat-requests
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
