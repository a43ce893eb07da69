package twitch

import (
	"strings"
	"time"

	"parley.internal/emulator/fake"
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

// HTTPFault is something that goes wrong with a request to Helix or OAuth, or,
// with the Path "/ws" or "/irc", with the opening of a WebSocket.
type HTTPFault = fake.HTTPFault

// Request is one that reached Helix or OAuth.
type Request = fake.Request

// FailChat makes messages over IRC fail. Faults apply in the order in which they
// were given, one at a time.
func (s *Server) FailChat(f ChatFault) {
	s.lock()
	defer s.unlock()
	s.faults.Add(f, f.Skip, f.Times)
}

// ClearFaults forgets what is still to go wrong.
func (s *Server) ClearFaults() {
	s.Core.ClearFaults()
	s.lock()
	defer s.unlock()
	s.faults = fake.Faults[ChatFault]{}
}

// chatFault is the fault that this message meets, or nil.
func (s *Server) chatFault(p post) *ChatFault {
	return s.faults.Next(func(f *ChatFault) bool {
		return (f.Login == "" || strings.EqualFold(f.Login, p.from.Login)) &&
			(f.Channel == "" || strings.EqualFold(f.Channel, p.room.name())) &&
			(f.Notice != "" || p.via != ViaHelix)
	})
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
	return s.forEachIRC(login, func(c *ircConn) { c.abort() })
}

// ReconnectIRC asks the IRC connections of a user, or of everyone where login is
// empty, to reconnect, and returns how many there were. They are not ended: the
// client does that, or a DropIRC that follows.
// https://dev.twitch.tv/docs/chat/irc/#reconnect
func (s *Server) ReconnectIRC(login string) int {
	return s.forEachIRC(login, func(c *ircConn) {
		if c.commands {
			c.send(message{prefix: host, command: "RECONNECT"})
		}
	})
}

// DelayIRC makes what the IRC connections of a user, or of everyone where login
// is empty, are sent from now on come late by d. Connections to come are not
// delayed.
func (s *Server) DelayIRC(login string, d time.Duration) int {
	return s.forEachIRC(login, func(c *ircConn) { c.delay = d })
}

// Notice sends a NOTICE with a msg-id and a text to a user's IRC connections in
// a channel.
func (s *Server) Notice(channel, login, id, text string) int {
	return s.forEachIRC(login, func(c *ircConn) { c.send(notice("#"+strings.ToLower(channel), id, text)) })
}

// Connections is how many IRC connections a user has that are logged in, or
// everyone where login is empty.
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
