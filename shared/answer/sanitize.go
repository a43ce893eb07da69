package answer

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

const (
	// guard breaks what would be a mention or a command: a zero width space, which people don't see.
	guard = "\u200b"

	// mark says in a text that it was relayed: three characters that nobody sees, in an order in which nobody writes
	// them. It is the only thing that survives a platform on the way to another bot.
	mark = "\u2063\u2062\u2063"

	// maxMarked is how many bytes of the first word go before the mark, so that it stands in the first message also of a
	// text that a platform's limit splits.
	maxMarked = 100
)

// SanitizeMentions breaks what a platform would take for a mention of people or for a command in a text of somebody who must not
// ring or command there, by a zero width space; whatever the platform takes for nothing stays as it is, and so does a
// text for Parley's own clients, where nothing is a mention. To be sure of what the platform sees, control characters
// and what is not UTF-8 go, and white space stays such. Twice is the same as once.
//
//   - Discord: @everyone and @here, in any case, and <@…>, which are people and, as <@&…>, roles
//     (https://docs.discord.com/developers/reference#message-formatting). Channels and emoji ring nobody.
//   - Twitch: @name at the beginning of a word, and /, . or ! at the beginning of the text: the last begins the commands
//     of other bots, which may obey a moderator's account such as Parley's.
func SanitizeMentions(text string, p identity.Platform) string {
	switch p {
	case identity.Discord:
		return breakMentions(clean(text), ringsOnDiscord)
	case identity.Twitch:
		text = breakMentions(clean(text), ringsOnTwitch)
		if rest := strings.TrimLeftFunc(text, unicode.IsSpace); rest != "" && strings.ContainsRune("/.!", rune(rest[0])) {
			return text[:len(text)-len(rest)] + guard + rest
		}
	}
	return text
}

// clean takes out what the gateways, or the platforms, would take out afterwards: that could put together what was
// apart.
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

// breakMentions puts the guard behind each @ for which rings holds, given what is before it and behind.
func breakMentions(text string, rings func(before, after string) bool) string {
	var b strings.Builder
	done := 0
	for i := range len(text) {
		if text[i] == '@' && rings(text[:i], text[i+1:]) {
			b.WriteString(text[done : i+1])
			b.WriteString(guard)
			done = i + 1
		}
	}
	b.WriteString(text[done:])
	return b.String()
}

func ringsOnDiscord(before, after string) bool {
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

func ringsOnTwitch(before, after string) bool {
	first, _ := utf8.DecodeRuneInString(after)
	last, _ := utf8.DecodeLastRuneInString(before)
	return inName(first) && !inName(last)
}

// inName also takes the letters of the names that Twitch shows in other scripts.
func inName(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// marked puts the mark into a text: at the end of its first word, since a platform may trim the ends of a text.
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

// StripMarks is a relayed text as people see it, without the mark and the guards.
func StripMarks(text string) string { return strings.ReplaceAll(RemoveMark(text), guard, "") }

// RemoveMark takes the mark out of a text.
func RemoveMark(text string) string { return strings.ReplaceAll(text, mark, "") }

// WasRelayed reports whether an event was relayed before, by this Parley or by another: it says so itself (egress.relay), or
// what was said carries the invisible mark that every relayed text has, because somebody's bridge, bot or client said
// again what a Parley had said. Such an event must not be relayed again.
//
// So what is relayed goes one hop and no further, as long as it stays what it is. A platform or a program that takes
// invisible characters out of a text takes the mark with it, and a person can write anything: for bots that do so, the
// enrichment has a list of those whom it does not relay at all.
func WasRelayed(e *event.Event) bool {
	if e.Egress != nil && e.Egress.Relay != nil {
		return true
	}
	if e.Message != nil && strings.Contains(e.Message.Text, mark) {
		return true
	}
	return strings.Contains(Text(e), mark)
}
