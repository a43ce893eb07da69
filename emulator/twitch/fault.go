package twitch

import (
	"strings"
	"time"

	"parley.internal/emulator/fake"
)

// ChatFault describes the failure of a message sent over IRC or, if Notice is set, also through Helix.
type ChatFault struct {
	// Login and Channel select messages by sender and channel; empty selects all.
	Login, Channel string
	// Skip is the number of messages that pass first. Times is the number of messages that fail then; 0 means 1.
	Skip, Times int
	// Notice refuses the message with a msg-id such as "msg_ratelimit", "msg_banned", "msg_duplicate" or
	// "msg_rejected". Through Helix, Notice is the code of the drop_reason.
	Notice string
	// Without Notice the message gets no answer. Done publishes the message anyway. Drop ends the connection.
	Done, Drop bool
}

// HTTPFault describes the failure of a request to Helix or OAuth, or of the opening of a WebSocket (Path "/ws", "/"
// or "/irc").
type HTTPFault = fake.HTTPFault

// Request is a received request to Helix or OAuth.
type Request = fake.Request

// FailChat adds a chat fault. Faults apply in the order of the calls, one per message.
func (s *Server) FailChat(f ChatFault) {
	s.lock()
	defer s.unlock()
	s.faults.Add(f, f.Skip, f.Times)
}

// ClearFaults removes all pending faults.
func (s *Server) ClearFaults() {
	s.Core.ClearFaults()
	s.lock()
	defer s.unlock()
	s.faults = fake.Faults[ChatFault]{}
}

// chatFault returns the fault for a message, or nil.
func (s *Server) chatFault(p post) *ChatFault {
	return s.faults.Next(func(f *ChatFault) bool {
		return (f.Login == "" || strings.EqualFold(f.Login, p.from.Login)) &&
			(f.Channel == "" || strings.EqualFold(f.Channel, p.room.name())) &&
			(f.Notice != "" || p.via != ViaHelix)
	})
}

// noticeText returns Twitch's text for a msg-id. https://dev.twitch.tv/docs/irc/msg-id/
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

// DropIRC drops the IRC connections of a user, or all connections if login is empty, without a message. It returns the
// number of connections.
func (s *Server) DropIRC(login string) int {
	return s.forEachIRC(login, func(c *ircConn) { c.abort() })
}

// ReconnectIRC sends RECONNECT to the IRC connections of a user, or to all if login is empty, and returns the number of
// connections. It does not end the connections: the client does, or a following DropIRC.
// https://dev.twitch.tv/docs/chat/irc/#reconnect
func (s *Server) ReconnectIRC(login string) int {
	return s.forEachIRC(login, func(c *ircConn) {
		if c.commands {
			c.send(message{prefix: host, command: "RECONNECT"})
		}
	})
}

// DelayIRC delays all further messages to the IRC connections of a user, or to all if login is empty. New connections
// are not delayed.
func (s *Server) DelayIRC(login string, d time.Duration) int {
	return s.forEachIRC(login, func(c *ircConn) { c.delay = d })
}

// Notice sends a NOTICE with a msg-id and a text to a user's IRC connections in
// a channel.
func (s *Server) Notice(channel, login, id, text string) int {
	return s.forEachIRC(login, func(c *ircConn) { c.send(notice("#"+strings.ToLower(channel), id, text)) })
}

// PushIRC sends a raw line, such as a malformed one, to the IRC connections of a user, or to all if login is empty. It
// returns the number of connections.
func (s *Server) PushIRC(login, line string) int {
	return s.forEachIRC(login, func(c *ircConn) { c.Push(line) })
}

// Connections returns the number of logged-in IRC connections of a user, or of all users if login is empty.
func (s *Server) Connections(login string) int { return s.forEachIRC(login, func(*ircConn) {}) }

func (s *Server) forEachIRC(login string, f func(*ircConn)) int {
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
