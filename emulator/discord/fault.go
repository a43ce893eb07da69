package discord

import (
	"bytes"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
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

// HTTPFault is something that goes wrong with a request to the HTTP API, or with
// the opening of a gateway connection.
type HTTPFault struct {
	// Method and Path say which; empty is any request to the API. Path is the
	// end of it, such as "/messages" or "/gateway/bot"; "/" is the gateway.
	Method, Path string
	// Skip is how many requests pass first; Times is how many fail then, 1
	// where it is 0.
	Skip, Times int
	// Delay comes before everything else.
	Delay time.Duration
	// Done carries the request out, as if nothing was wrong, before it fails.
	Done bool
	// Status is answered, and Header with it, with an error in the body from
	// 400 on. 429 is a rate limit that ends after RetryAfter: that of the route,
	// or where Global is set of everything.
	Status     int
	Header     http.Header
	RetryAfter time.Duration
	Global     bool
	// Drop ends the connection instead of answering. Hang lets the client wait
	// for as long as it likes. With none of Status, Drop and Hang the request
	// succeeds, after Delay.
	Drop, Hang bool
}

// maxBody is more than any request needs.
const maxBody = 1 << 20

type faults struct {
	dispatches []*DispatchFault
	https      []*HTTPFault
}

// FailDispatch makes events of the gateway go wrong. Faults apply in the order
// in which they were given, one at a time.
func (s *Server) FailDispatch(f DispatchFault) {
	f.Times = max(f.Times, 1)
	s.lock()
	defer s.unlock()
	s.faults.dispatches = append(s.faults.dispatches, &f)
}

// FailHTTP makes requests fail. Faults apply in the order in which they were
// given, one at a time.
func (s *Server) FailHTTP(f HTTPFault) {
	f.Times = max(f.Times, 1)
	f.Header = f.Header.Clone()
	s.lock()
	defer s.unlock()
	s.faults.https = append(s.faults.https, &f)
}

// ClearFaults forgets what is still to go wrong.
func (s *Server) ClearFaults() {
	s.lock()
	defer s.unlock()
	s.faults = faults{}
}

// dispatch is the fault that this event meets, or nil.
func (f *faults) dispatch(ss *session, kind string) *DispatchFault {
	for i, d := range f.dispatches {
		if d.BotID != "" && d.BotID != ss.bot.ID || d.Type != "" && d.Type != kind {
			continue
		}
		if d.Skip > 0 {
			d.Skip--
			continue
		}
		if d.Times--; d.Times == 0 {
			f.dispatches = slices.Delete(f.dispatches, i, i+1)
		}
		return d
	}
	return nil
}

// request is the fault that this request meets, or nil.
func (f *faults) request(r *http.Request) *HTTPFault {
	for i, h := range f.https {
		gateway := r.URL.Path == gatewayPath
		if h.Method != "" && h.Method != r.Method || gateway != (h.Path == gatewayPath) || !strings.HasSuffix(r.URL.Path, h.Path) {
			continue
		}
		if h.Skip > 0 {
			h.Skip--
			continue
		}
		if h.Times--; h.Times == 0 {
			f.https = slices.Delete(f.https, i, i+1)
		}
		return h
	}
	return nil
}

// injected carries out the faults of HTTP, and counts requests.
func (s *Server) injected(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gateway := r.URL.Path == gatewayPath
		// Only once the body is read does the server notice a client that goes
		// away while it is kept waiting.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			writeError(w, refuse(http.StatusRequestEntityTooLarge, 40005, "Request entity too large"))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		s.mu.Lock()
		f := s.faults.request(r)
		s.mu.Unlock()
		done := func(status int) {
			if gateway {
				return
			}
			s.lock()
			defer s.unlock()
			s.requests = append(s.requests, Request{r.Method, r.URL.Path, status, s.now()})
		}
		rec := &recorder{header: http.Header{}, status: http.StatusOK}
		serve := func() {
			h.ServeHTTP(rec, r)
			done(rec.status)
			rec.flush(w)
		}
		if gateway {
			// A connection is taken over, and can't be kept back.
			serve = func() { h.ServeHTTP(w, r) }
		}
		if f == nil {
			serve()
			return
		}
		if f.Delay > 0 {
			after(r.Context(), f.Delay)
		}
		if f.Status == 0 && !f.Drop && !f.Hang {
			serve()
			return
		}
		if f.Done && !gateway {
			h.ServeHTTP(rec, r)
		}
		switch {
		case f.Status != 0:
			done(f.Status)
			maps.Copy(w.Header(), f.Header)
			switch {
			case f.Status == http.StatusTooManyRequests:
				writeLimited(w, f.RetryAfter, f.Global)
			case f.Status < http.StatusBadRequest:
				w.WriteHeader(f.Status)
			default:
				writeError(w, refuse(f.Status, 0, "injected fault"))
			}
		case f.Hang:
			done(0)
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		default:
			done(0)
			panic(http.ErrAbortHandler)
		}
	})
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

// recorder keeps an answer back.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

func (r *recorder) flush(w http.ResponseWriter) {
	maps.Copy(w.Header(), r.header)
	w.WriteHeader(r.status)
	// The client that went away is no concern of the server's.
	_, _ = w.Write(r.body.Bytes())
}

// DropGateway ends the gateway connections of a bot without a word, or all where
// botID is empty, and returns how many there were. The sessions can be resumed.
func (s *Server) DropGateway(botID string) int {
	return s.eachConn(botID, func(c *gatewayConn) { c.cancel() })
}

// CloseGateway closes the gateway connections of a bot, or all where botID is
// empty, with one of the Close constants, and returns how many there were. Codes
// after which Discord wants a new session end the session.
func (s *Server) CloseGateway(botID string, code int) int {
	return s.eachConn(botID, func(c *gatewayConn) {
		switch code {
		case CloseNotAuthenticated, CloseAuthenticationFailed, CloseInvalidSeq, CloseSessionTimedOut,
			CloseInvalidShard, CloseShardingRequired, CloseInvalidVersion, CloseInvalidIntents, CloseDisallowedIntents:
			s.end(c.session)
			s.detach(c)
		}
		c.close(websocket.StatusCode(code))
	})
}

// ReconnectGateway asks the gateway connections of a bot, or all where botID is
// empty, to reconnect and resume, and closes those that are kept too long. It
// returns how many there were.
// https://discord.com/developers/docs/events/gateway-events#reconnect
func (s *Server) ReconnectGateway(botID string) int {
	return s.eachConn(botID, func(c *gatewayConn) {
		c.push(frame{data: encode(payload{Op: opReconnect})})
		if !s.closing {
			s.tasks.Go(func() {
				if after(s.ctx, s.options.timing.Reconnect) {
					c.close(CloseUnknownError)
				}
			})
		}
	})
}

// InvalidateSessions ends the connected sessions of a bot, or all where botID is
// empty, with an Invalid Session, and returns how many there were. Where they
// are resumable, they go on once they are resumed on another connection.
// https://discord.com/developers/docs/events/gateway-events#invalid-session
func (s *Server) InvalidateSessions(botID string, resumable bool) int {
	return s.eachConn(botID, func(c *gatewayConn) {
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
	return s.eachConn(botID, func(c *gatewayConn) { c.mute = true })
}

// RequestHeartbeat asks the connections of a bot, or all where botID is empty, for
// a heartbeat at once, and returns how many there were.
// https://discord.com/developers/docs/events/gateway#heartbeat-interval-heartbeat-requests
func (s *Server) RequestHeartbeat(botID string) int {
	return s.eachConn(botID, func(c *gatewayConn) { c.push(frame{data: encode(payload{Op: opHeartbeat})}) })
}

func (s *Server) eachConn(botID string, f func(*gatewayConn)) int {
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
