package answer

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

const (
	// guard is the zero width space, invisible to people. Inside a mention or a command, it leaves plain text.
	guard = "\u200b"

	// mark is the sign of a relayed text: three invisible characters, in an order that people do not write. The text
	// carries the sign, because a platform passes nothing else on to another bot.
	mark = "\u2063\u2062\u2063"

	// maxMarked is the number of bytes of the first word before the mark. So the mark is in the first message, even if
	// a platform's limit splits the text.
	maxMarked = 100
)

// SanitizeMentions inserts a zero width space into each mention and command in a text of an author without the
// permission to mention or command on the platform p. Other text stays, and texts for Parley's own clients have no
// mentions. To know what the platform will see, SanitizeMentions also removes control characters and invalid UTF-8;
// white space stays white space. A second call changes nothing.
//
//   - Discord: @everyone and @here, in any case, and <@…>: users and, as <@&…>, roles
//     (https://docs.discord.com/developers/reference#message-formatting). Channels and emoji notify no one.
//   - Twitch: @name at the beginning of a word, and /, . or ! at the beginning of the text. The ! begins commands of other
//     bots, which may obey a moderator's account such as Parley's.
func SanitizeMentions(text string, p identity.Platform) string {
	switch p {
	case identity.Discord:
		return breakMentions(clean(text), mentionsOnDiscord)
	case identity.Twitch:
		text = breakMentions(clean(text), mentionsOnTwitch)
		if rest := strings.TrimLeftFunc(text, unicode.IsSpace); rest != "" && strings.ContainsRune("/.!", rune(rest[0])) {
			return text[:len(text)-len(rest)] + guard + rest
		}
	}
	return text
}

// clean removes the characters that a gateway or a platform would remove later, because the removal could join the
// pieces of a mention.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.IsControl(r) && unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r) || r == unicode.ReplacementChar:
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
}

// breakMentions inserts the guard behind each @ for which mentions(before, after) holds.
func breakMentions(text string, mentions func(before, after string) bool) string {
	var b strings.Builder
	done := 0
	for i := range len(text) {
		if text[i] == '@' && mentions(text[:i], text[i+1:]) {
			b.WriteString(text[done : i+1])
			b.WriteString(guard)
			done = i + 1
		}
	}
	b.WriteString(text[done:])
	return b.String()
}

func mentionsOnDiscord(before, after string) bool {
	if strings.HasSuffix(before, "<") {
		id := strings.TrimLeft(after, "!&")
		return id != "" && id[0] >= '0' && id[0] <= '9'
	}
	for _, all := range []string{"everyone", "here"} {
		if len(after) >= len(all) && strings.EqualFold(after[:len(all)], all) {
			return true
		}
	}
	return false
}

func mentionsOnTwitch(before, after string) bool {
	first, _ := utf8.DecodeRuneInString(after)
	last, _ := utf8.DecodeLastRuneInString(before)
	return inName(first) && !inName(last)
}

// inName includes letters of other scripts, because Twitch shows names in other scripts.
func inName(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// marked inserts the mark at the end of the first word, since a platform may trim the ends of a text.
func marked(text string) string {
	end := len(text)
	for i, r := range text {
		if unicode.IsSpace(r) && i > 0 || i >= maxMarked {
			end = i
			break
		}
	}
	return text[:end] + mark + text[end:]
}

// StripMarks returns a relayed text as people see the text, without the mark and the guards.
func StripMarks(text string) string { return strings.ReplaceAll(RemoveMark(text), guard, "") }

// RemoveMark removes the mark from a text.
func RemoveMark(text string) string { return strings.ReplaceAll(text, mark, "") }

// WasRelayed reports whether an event was relayed before, by any Parley: the event has egress.relay, or its text has
// the invisible mark, because a bridge, bot or client repeated a relayed text. The caller must not relay such an event
// again.
//
// A text is therefore relayed only once, as long as its characters stay. A platform or program that removes invisible
// characters also removes the mark, and a person can write anything. For such bots there is RELAY_IGNORE, a list of
// authors never relayed.
func WasRelayed(e *event.Event) bool {
	if e.Egress != nil && e.Egress.Relay != nil {
		return true
	}
	if e.Message != nil && strings.Contains(e.Message.Text, mark) {
		return true
	}
	return strings.Contains(Text(e), mark)
}
