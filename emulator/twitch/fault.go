package twitch

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// ChatFault is something that goes wrong with a message that is sent over IRC,
// or, where it has a Notice, through Helix.
type ChatFault struct {
	// Login and Channel say whose message it is and where; empty is any.
	Login, Channel string
	// Skip is how many messages pass first; Times is how many fail then, 1
	// where it is 0.
	Skip, Times int
	// Notice refuses the message with that msg-id, such as "msg_ratelimit",
	// "msg_banned", "msg_duplicate" or "msg_rejected"; through Helix it is the
	// code of the drop_reason.
	Notice string
	// Without Notice the message is not answered. Done says whether it is
	// published all the same, and Drop that the connection ends.
	Done, Drop bool
}

// HTTPFault is something that goes wrong with a request to Helix or OAuth.
type HTTPFault struct {
	// Method and Path say which; empty is any. Path is the end of it, such as
	// "/chat/messages", "/whispers" or "/oauth2/token".
	Method, Path string
	// Skip is how many requests pass first; Times is how many fail then, 1
	// where it is 0.
	Skip, Times int
	// Delay comes before everything else.
	Delay time.Duration
	// Done carries the request out, as if nothing was wrong, before it fails.
	Done bool
	// Status is answered, and Header with it: with an error in the body from
	// 400 on, else without a body, so that 204 for a whisper that is not Done is
	// one that Twitch drops silently.
	Status int
	Header http.Header
	// Drop ends the connection instead of answering. Hang lets the client wait
	// for as long as it likes. With none of Status, Drop and Hang the request
	// succeeds, after Delay.
	Drop, Hang bool
}

// maxBody is more than any request needs.
const maxBody = 1 << 20

type faults struct {
	chats []*ChatFault
	https []*HTTPFault
}

// FailChat makes messages over IRC fail. Faults apply in the order in which they
// were given, one at a time.
func (s *Server) FailChat(f ChatFault) {
	f.Times = max(f.Times, 1)
	s.lock()
	defer s.unlock()
	s.faults.chats = append(s.faults.chats, &f)
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

// chat is the fault that this message meets, or nil.
func (f *faults) chat(p post) *ChatFault {
	for i, c := range f.chats {
		if c.Login != "" && !strings.EqualFold(c.Login, p.from.Login) ||
			c.Channel != "" && !strings.EqualFold(c.Channel, p.room.name()) ||
			c.Notice == "" && p.via == ViaHelix {
			continue
		}
		if c.Skip > 0 {
			c.Skip--
			continue
		}
		if c.Times--; c.Times == 0 {
			f.chats = slices.Delete(f.chats, i, i+1)
		}
		return c
	}
	return nil
}

// request is the fault that this request meets, or nil.
func (f *faults) request(r *http.Request) *HTTPFault {
	for i, h := range f.https {
		if h.Method != "" && h.Method != r.Method || !strings.HasSuffix(r.URL.Path, h.Path) {
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
		if r.URL.Path == ircPath || r.URL.Path == eventSubPath {
			h.ServeHTTP(w, r)
			return
		}
		// Only once the body is read does the server notice a client that goes
		// away while it is kept waiting.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			writeError(w, http.StatusRequestEntityTooLarge, err.Error())
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		s.mu.Lock()
		f := s.faults.request(r)
		s.mu.Unlock()
		rec := &recorder{header: http.Header{}, status: http.StatusOK}
		done := func(status int) {
			s.lock()
			defer s.unlock()
			s.requests = append(s.requests, Request{r.Method, r.URL.Path, status, s.now()})
		}
		if f == nil {
			h.ServeHTTP(rec, r)
			done(rec.status)
			rec.flush(w)
			return
		}
		if f.Delay > 0 {
			timer := time.NewTimer(f.Delay)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-r.Context().Done():
			}
		}
		fails := f.Status != 0 || f.Drop || f.Hang
		if f.Done || !fails {
			h.ServeHTTP(rec, r)
		}
		switch {
		case !fails:
			done(rec.status)
			rec.flush(w)
		case f.Status != 0:
			done(f.Status)
			maps.Copy(w.Header(), f.Header)
			if f.Status < http.StatusBadRequest {
				w.WriteHeader(f.Status)
				return
			}
			writeError(w, f.Status, "injected fault")
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

// noticeText is what Twitch says with a msg-id.
// https://dev.twitch.tv/docs/irc/msg-id/
func noticeText(id, channel string) string {
	switch id {
	case "msg_banned":
		return "You are permanently banned from talking in " + channel + "."
	case "msg_duplicate":
		return "Your message was not sent because it is identical to the previous one you sent, less than 30 seconds ago."
	case "msg_ratelimit":
		return "Your message was not sent because you are sending messages too quickly."
	case "msg_rejected":
		return "Your message is being checked by mods and has not been posted."
	case "msg_rejected_mandatory":
		return "Your message wasn't posted due to conflicts with the channel's moderation settings."
	case "msg_requires_verified_phone_number":
		return "A verified phone number is required to chat in this channel. Please visit https://www.twitch.tv/settings/security to verify your phone number."
	case "msg_suspended":
		return "Your account has been suspended."
	case "msg_verified_email":
		return "This room requires a verified account to chat. Please verify your account at https://www.twitch.tv/settings/security."
	case "no_permission":
		return "You don't have permission to perform that action."
	}
	return "Your message was not sent."
}

// DropIRC ends the IRC connections of a user without a word, or of everyone
// where login is empty, and returns how many there were.
func (s *Server) DropIRC(login string) int {
	return s.eachIRC(login, func(c *ircConn) { c.abort() })
}

// ReconnectIRC asks the IRC connections of a user, or of everyone where login is
// empty, to reconnect, and returns how many there were. They are not ended: the
// client does that, or a DropIRC that follows.
// https://dev.twitch.tv/docs/chat/irc/#reconnect
func (s *Server) ReconnectIRC(login string) int {
	return s.eachIRC(login, func(c *ircConn) {
		if c.commands {
			c.send(message{prefix: host, command: "RECONNECT"})
		}
	})
}

// DelayIRC makes what the IRC connections of a user, or of everyone where login
// is empty, are sent from now on come late by d. Connections to come are not
// delayed.
func (s *Server) DelayIRC(login string, d time.Duration) int {
	return s.eachIRC(login, func(c *ircConn) { c.delay = d })
}

// Notice sends a NOTICE with a msg-id and a text to a user's IRC connections in
// a channel.
func (s *Server) Notice(channel, login, id, text string) int {
	return s.eachIRC(login, func(c *ircConn) { c.send(notice("#"+strings.ToLower(channel), id, text)) })
}

// Connections is how many IRC connections a user has that are logged in, or
// everyone where login is empty.
func (s *Server) Connections(login string) int { return s.eachIRC(login, func(*ircConn) {}) }

func (s *Server) eachIRC(login string, f func(*ircConn)) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for c := range s.clients {
		if c.registered && (login == "" || strings.EqualFold(login, c.nick)) {
			f(c)
			n++
		}
	}
	return n
}
