package twitch

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// host is the prefix of the server's own messages.
const host = "tmi.twitch.tv"

// message is an IRC message in either direction. https://dev.twitch.tv/docs/chat/irc/#parsing-messages
type message struct {
	tags    tags
	prefix  string // without the colon
	command string
	params  []string // only the last parameter may be empty or contain spaces
}

// tags holds unescaped tags of IRCv3. https://ircv3.net/specs/extensions/message-tags
type tags map[string]string

// tagName matches the name of a tag: an optional plus, an optional vendor, and the name itself.
var tagName = regexp.MustCompile(`^\+?([A-Za-z0-9.-]+/)?[A-Za-z0-9-]+$`)

var (
	escapeTag   = strings.NewReplacer(`\`, `\\`, ";", `\:`, " ", `\s`, "\r", `\r`, "\n", `\n`)
	newlineText = strings.NewReplacer("\r", " ", "\n", " ", "\x00", "")
)

// encode returns the message as a line without line end, with tags only if withTags is true.
func (m message) encode(withTags bool) string {
	var b strings.Builder
	if withTags && len(m.tags) > 0 {
		separator := byte('@')
		for _, k := range slices.Sorted(maps.Keys(m.tags)) {
			b.WriteByte(separator)
			b.WriteString(k)
			b.WriteByte('=')
			_, _ = escapeTag.WriteString(&b, m.tags[k])
			separator = ';'
		}
		b.WriteByte(' ')
	}
	if m.prefix != "" {
		b.WriteByte(':')
		b.WriteString(m.prefix)
		b.WriteByte(' ')
	}
	b.WriteString(m.command)
	for i, p := range m.params {
		b.WriteByte(' ')
		// A line break in a text would end the line for the client.
		p = newlineText.Replace(p)
		if i == len(m.params)-1 && trailing(m.command, i, p) {
			b.WriteByte(':')
		}
		b.WriteString(p)
	}
	return b.String()
}

// trailing reports whether a parameter gets a colon. Twitch puts a colon before every text, needed or not.
func trailing(command string, i int, p string) bool {
	if p == "" || p[0] == ':' || strings.Contains(p, " ") {
		return true
	}
	return i > 0 && command != "CAP"
}

// IsTag reports whether name is a name of an IRCv3 tag, such as "emotes" or "vendor/tag".
func IsTag(name string) bool { return tagName.MatchString(name) }

// parseMessage parses a line without line end, and reports whether the line has a command.
func parseMessage(line string) (message, bool) {
	var m message
	line = strings.TrimLeft(line, " ")
	if rest, ok := strings.CutPrefix(line, "@"); ok {
		var raw string
		raw, line, _ = strings.Cut(rest, " ")
		m.tags = parseTags(raw)
		line = strings.TrimLeft(line, " ")
	}
	if rest, ok := strings.CutPrefix(line, ":"); ok {
		m.prefix, line, _ = strings.Cut(rest, " ")
		line = strings.TrimLeft(line, " ")
	}
	m.command, line, _ = strings.Cut(line, " ")
	m.command = strings.ToUpper(m.command)
	for {
		line = strings.TrimLeft(line, " ")
		if line == "" {
			break
		}
		if text, ok := strings.CutPrefix(line, ":"); ok {
			m.params = append(m.params, text)
			break
		}
		var p string
		p, line, _ = strings.Cut(line, " ")
		m.params = append(m.params, p)
	}
	return m, m.command != ""
}

func parseTags(raw string) tags {
	t := tags{}
	for _, pair := range strings.Split(raw, ";") {
		if key, value, _ := strings.Cut(pair, "="); key != "" {
			t[key] = unescapeTag(value)
		}
	}
	return t
}

// unescapeTag drops a backslash before an unknown character and at the end, so a Replacer is not enough.
func unescapeTag(v string) string {
	if !strings.Contains(v, `\`) {
		return v
	}
	var b strings.Builder
	for i := 0; i < len(v); i++ {
		if v[i] != '\\' {
			b.WriteByte(v[i])
			continue
		}
		if i++; i == len(v) {
			break
		}
		switch v[i] {
		case ':':
			b.WriteByte(';')
		case 's':
			b.WriteByte(' ')
		case 'r':
			b.WriteByte('\r')
		case 'n':
			b.WriteByte('\n')
		default:
			b.WriteByte(v[i])
		}
	}
	return b.String()
}

// param returns the i-th parameter, or an empty string.
func (m message) param(i int) string {
	if i >= len(m.params) {
		return ""
	}
	return m.params[i]
}

// Messages of the server. https://dev.twitch.tv/docs/chat/irc/#irc-command-reference

func userPrefix(login string) string {
	return login + "!" + login + "@" + login + "." + host
}

// userTags returns the tags about a user in a channel.
func userTags(r *room, u *account) tags {
	role := r.roles[u.ID]
	var badges []string
	switch {
	case r.broadcaster(u):
		badges = append(badges, "broadcaster/1")
	case role.Moderator:
		badges = append(badges, "moderator/1")
	}
	if role.VIP {
		badges = append(badges, "vip/1")
	}
	t := tags{
		"badge-info":   "",
		"color":        u.Color,
		"display-name": u.DisplayName,
		"mod":          digit(role.Moderator),
		"subscriber":   digit(role.SubscriberMonths > 0),
		"turbo":        "0",
		"user-type":    "",
	}
	if role.Moderator {
		t["user-type"] = "mod"
	}
	if role.VIP {
		t["vip"] = "1"
	}
	if role.SubscriberMonths > 0 {
		t["badge-info"] = "subscriber/" + strconv.Itoa(role.SubscriberMonths)
		badges = append(badges, "subscriber/"+strconv.Itoa(badgeMonths(role.SubscriberMonths)))
	}
	t["badges"] = strings.Join(badges, ",")
	return t
}

// badgeMonths returns the version of the subscriber badge for a number of months. The badge changes only at a few steps.
func badgeMonths(months int) int {
	badge := 0
	for _, step := range []int{3, 6, 9, 12, 18, 24, 36, 48, 60} {
		if months >= step {
			badge = step
		}
	}
	return badge
}

func (s *Server) privmsg(r *room, u *account, l *Line, first bool) message {
	t := userTags(r, u)
	t["emotes"] = ""
	t["first-msg"] = digit(first)
	t["flags"] = ""
	t["id"] = l.ID
	t["returning-chatter"] = "0"
	t["room-id"] = r.owner.ID
	t["tmi-sent-ts"] = millis(l.At)
	t["user-id"] = u.ID
	if l.Nonce != "" {
		t["client-nonce"] = l.Nonce
	}
	text := l.Text
	if parent := r.byID[l.ReplyTo]; parent != nil {
		t["reply-parent-msg-id"] = parent.ID
		t["reply-parent-user-id"] = parent.UserID
		t["reply-parent-user-login"] = parent.Login
		t["reply-parent-display-name"] = parent.DisplayName
		t["reply-parent-msg-body"] = parent.Text
		root := r.thread(parent)
		t["reply-thread-parent-msg-id"] = root.ID
		t["reply-thread-parent-user-login"] = root.Login
		// Twitch puts the name before the text of a reply.
		text = "@" + parent.DisplayName + " " + text
	}
	if l.Action {
		text = "\x01ACTION " + text + "\x01"
	}
	return message{tags: t, prefix: userPrefix(u.Login), command: "PRIVMSG", params: []string{"#" + r.name(), text}}
}

// thread returns the first line of the conversation of l.
func (r *room) thread(l *Line) *Line {
	for r.byID[l.ReplyTo] != nil && l.ReplyTo != l.ID {
		l = r.byID[l.ReplyTo]
	}
	return l
}

func userState(r *room, u *account) message {
	t := userTags(r, u)
	t["emote-sets"] = "0"
	return message{tags: t, prefix: host, command: "USERSTATE", params: []string{"#" + r.name()}}
}

func globalUserState(u *account) message {
	return message{tags: tags{
		"badge-info":   "",
		"badges":       "",
		"color":        u.Color,
		"display-name": u.DisplayName,
		"emote-sets":   "0",
		"turbo":        "0",
		"user-id":      u.ID,
		"user-type":    "",
	}, prefix: host, command: "GLOBALUSERSTATE"}
}

// notice makes a NOTICE about a channel, given with #, or about the connection, given as "*".
func notice(where, id, text string) message {
	m := message{prefix: host, command: "NOTICE", params: []string{where, text}}
	if id != "" {
		m.tags = tags{"msg-id": id}
	}
	return m
}

func digit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

func millis(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

func newID() string { return uuid.NewString() }
