package twitch

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// capabilities lists the capabilities of https://dev.twitch.tv/docs/chat/irc/#requesting-twitch-capabilities
var capabilities = []string{"twitch.tv/commands", "twitch.tv/membership", "twitch.tv/tags"}

// handle executes a command of the client, and reports whether to read on. The server's mu is held.
func (c *ircConn) handle(m message) bool {
	if c.refused {
		return true
	}
	switch m.command {
	case "CAP":
		c.negotiate(m)
		return true
	case "PASS":
		if !c.registered {
			c.pass = m.param(0)
		}
		return true
	case "NICK":
		if c.registered {
			return true
		}
		return c.login(strings.ToLower(m.param(0)))
	case "PING":
		c.answerPing(m)
		return true
	case "PONG":
		select {
		case c.pong <- struct{}{}:
		default:
		}
		return true
	case "QUIT":
		return false
	case "USER", "MODE":
		return true // accepted by Twitch, without effect
	}
	if !c.registered {
		return true
	}
	switch m.command {
	case "JOIN":
		for _, name := range strings.Split(m.param(0), ",") {
			c.join(strings.ToLower(name))
		}
	case "PART":
		for _, name := range strings.Split(m.param(0), ",") {
			if a, err := c.server.account(name); err == nil && c.rooms[&a.room] {
				c.part(&a.room)
				c.send(message{prefix: userPrefix(c.nick), command: "PART", params: []string{"#" + a.Login}})
			}
		}
	case "PRIVMSG":
		return c.privmsg(m)
	default:
		c.send(message{prefix: host, command: "421", params: []string{c.nick, m.command, "Unknown command"}})
	}
	return true
}

// answerPing answers PING. Twitch does not document its PONG: a PING with a text gets a PONG with the server as prefix and
// with the text, and a PING without a text gets a PONG without a prefix. tmi.js sends PING without a text, and closes the
// connection unless the PONG has no prefix. twurple and go-twitch-irc send a text and want it back.
func (c *ircConn) answerPing(m message) {
	if len(m.params) == 0 {
		c.Push("PONG :" + host)
		return
	}
	c.send(message{prefix: host, command: "PONG", params: []string{host, m.params[0]}})
}

// negotiate answers CAP. https://ircv3.net/specs/extensions/capability-negotiation.html
func (c *ircConn) negotiate(m message) {
	reply := func(verb, caps string) {
		c.Push(":" + host + " CAP * " + verb + " :" + caps)
	}
	switch strings.ToUpper(m.param(0)) {
	case "LS":
		reply("LS", strings.Join(capabilities, " "))
	case "REQ":
		asked := strings.Fields(strings.Join(m.params[1:], " "))
		for _, name := range asked {
			if !slices.Contains(capabilities, name) {
				reply("NAK", strings.Join(asked, " "))
				return
			}
		}
		for _, name := range asked {
			switch name {
			case "twitch.tv/tags":
				c.tags = true
			case "twitch.tv/commands":
				c.commands = true
			case "twitch.tv/membership":
				c.membership = true
			}
		}
		reply("ACK", strings.Join(asked, " "))
	}
}

// login answers NICK. https://dev.twitch.tv/docs/chat/irc/#authenticating-with-the-twitch-irc-server
func (c *ircConn) login(nick string) bool {
	s := c.server
	refuse := func(text string) bool {
		c.send(notice("*", "", text))
		c.Close(0)
		c.refused = true
		return true
	}
	if strings.HasPrefix(nick, "justinfan") && strings.Trim(nick[len("justinfan"):], "0123456789") == "" {
		// The anonymous user reads and cannot write.
		c.nick = nick
	} else {
		access, ok := strings.CutPrefix(c.pass, "oauth:")
		if !ok {
			return refuse("Improperly formatted auth")
		}
		if !loginPattern.MatchString(nick) {
			return refuse("Invalid NICK")
		}
		t := s.valid(access)
		if t == nil || t.UserID == "" || s.users[t.UserID].Login != nick || !t.has("chat:read", "chat:edit") {
			return refuse("Login authentication failed")
		}
		a := s.users[t.UserID]
		if !a.logins.Take(s.now(), s.options.limits.Logins) {
			return refuse("Login unsuccessful")
		}
		c.nick, c.account, c.token = nick, a, t
	}
	c.registered = true
	for _, line := range []message{
		{command: "001", params: []string{c.nick, "Welcome, GLHF!"}},
		{command: "002", params: []string{c.nick, "Your host is " + host}},
		{command: "003", params: []string{c.nick, "This server is rather new"}},
		{command: "004", params: []string{c.nick, "-"}},
		{command: "375", params: []string{c.nick, "-"}},
		{command: "372", params: []string{c.nick, "You are in a maze of twisty passages, all alike."}},
		{command: "376", params: []string{c.nick, ">"}},
	} {
		line.prefix = host
		c.send(line)
	}
	if c.commands && c.account != nil {
		c.send(globalUserState(c.account))
	}
	return true
}

// join answers JOIN. https://dev.twitch.tv/docs/chat/irc/#joining-a-chat-room
func (c *ircConn) join(name string) {
	s := c.server
	if !strings.HasPrefix(name, "#") {
		return
	}
	if c.account != nil && !c.account.joins.Take(s.now(), s.options.limits.Joins) {
		return // Twitch ignores a JOIN above the limit
	}
	a, err := s.account(name)
	if err != nil {
		if c.commands {
			c.send(notice(name, "msg_channel_suspended", "This channel does not exist or has been suspended."))
		}
		return
	}
	r := &a.room
	if c.account != nil {
		if b, ok := r.banned(c.account, s.now()); ok && b.until.IsZero() {
			if c.commands {
				c.send(notice(name, "msg_banned", noticeText("msg_banned", r.name())))
			}
			return
		}
	}
	if c.rooms[r] {
		return
	}
	in := message{prefix: userPrefix(c.nick), command: "JOIN", params: []string{name}}
	present := map[string]bool{c.nick: true}
	for other := range r.joined {
		if other.membership && other.nick != c.nick {
			other.send(in)
		}
		if c.membership {
			present[other.nick] = true
		}
	}
	r.joined[c], c.rooms[r] = true, true
	c.send(in)
	from := c.nick + "." + host
	c.send(message{prefix: from, command: "353", params: []string{c.nick, "=", name, strings.Join(slices.Sorted(maps.Keys(present)), " ")}})
	c.send(message{prefix: from, command: "366", params: []string{c.nick, name, "End of /NAMES list"}})
	if c.commands {
		if c.account != nil {
			c.send(userState(r, c.account))
		}
		c.send(roomState(r))
	}
}

// part removes the connection from a channel.
func (c *ircConn) part(r *room) {
	delete(r.joined, c)
	delete(c.rooms, r)
	for other := range r.joined {
		if other.nick == c.nick {
			return // another connection of the user is still in the channel
		}
	}
	for other := range r.joined {
		if other.membership {
			other.send(message{prefix: userPrefix(c.nick), command: "PART", params: []string{"#" + r.name()}})
		}
	}
}

// privmsg answers PRIVMSG. https://dev.twitch.tv/docs/chat/irc/#sending-messages
func (c *ircConn) privmsg(m message) bool {
	s := c.server
	name := strings.ToLower(m.param(0))
	a, err := s.account(name)
	if err != nil || !strings.HasPrefix(name, "#") || c.account == nil {
		return true // Twitch is silent
	}
	r := &a.room
	refuse := func(id, text string) bool {
		if c.commands {
			c.send(notice("#"+r.name(), id, text))
		}
		return true
	}
	if !c.token.has("chat:edit") {
		return refuse("no_permission", "You don't have permission to perform that action.")
	}
	p := post{room: r, from: c.account, text: m.param(1), via: ViaIRC, conn: c, nonce: m.tags["client-nonce"]}
	if body, ok := strings.CutPrefix(p.text, "\x01ACTION "); ok {
		p.text, p.action = strings.TrimSuffix(body, "\x01"), true
	} else if len(p.text) > 1 && (p.text[0] == '/' || p.text[0] == '.') && isLetter(p.text[1]) {
		command, body, _ := strings.Cut(p.text[1:], " ")
		if command != "me" {
			// All other commands moved to the API in 2023.
			return refuse("unrecognized_cmd", "Unrecognized command: "+p.text[:1]+command)
		}
		p.text, p.action = body, true
	}
	p.text = trimText(p.text)
	if p.text == "" {
		return true
	}
	if parent := r.byID[m.tags["reply-parent-msg-id"]]; parent != nil {
		p.parent = parent.ID
	}
	f := s.chatFault(p)
	if f != nil && f.Notice != "" {
		return refuse(f.Notice, noticeText(f.Notice, r.name()))
	}
	if f == nil || f.Done {
		if no := s.admit(p); no != nil {
			return refuse(no.id, no.text)
		}
		l := s.publish(p)
		if f == nil {
			if c.commands {
				state := userState(r, c.account)
				state.tags["id"] = l.ID
				if p.nonce != "" && !s.options.noNonce {
					state.tags["client-nonce"] = p.nonce
				}
				c.send(state)
			}
			return true
		}
	}
	if f.Drop {
		c.abort()
		return false
	}
	return true
}

// trimText changes a text received over IRC like Twitch: no spaces at the ends, no double spaces, cut at the limit.
// Twitch does not document the rule; see https://github.com/pajbot/tmi-rate-limits.
func trimText(text string) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == ' ' }), " ")
	if utf8.RuneCountInString(text) > maxText {
		text = string([]rune(text)[:maxText])
	}
	return text
}

func isLetter(b byte) bool { return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' }
