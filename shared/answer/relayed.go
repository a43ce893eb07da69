package answer

import (
	"strings"

	"parley.internal/shared/event"
)

const (
	// guard is the zero width space, invisible to people. Inside a mention or before a command, it leaves plain text.
	guard = "\u200b"

	// mark is the sign of a relayed text: three invisible characters, in an order that people do not write. The text
	// carries the sign, because a platform passes nothing else on to another bot.
	mark = "\u2063\u2062\u2063"

	// separatedMark is the mark as a word of its own. So the mark touches no link, mention, emote or markup.
	separatedMark = " " + mark
)

// StripMarks returns a relayed text as people see the text, without the mark and the guards.
func StripMarks(text string) string { return strings.ReplaceAll(RemoveMark(text), guard, "") }

// RemoveMark removes the mark from a text.
func RemoveMark(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, separatedMark, ""), mark, "")
}

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
