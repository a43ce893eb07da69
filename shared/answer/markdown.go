package answer

import (
	"regexp"
	"strings"
)

// The parts of a text with a meaning in Discord's Markdown
// (https://support.discord.com/hc/en-us/articles/210298617, https://docs.discord.com/developers/reference#message-formatting).
var (
	// link matches the bare links that Discord's client makes clickable. A backslash inside would be a part of the link.
	link = regexp.MustCompile(`^(?:https?|steam)://[^\s<]+[^<.,:;"'\]\s]`)
	// bracketed matches a link in angle brackets. Discord's client hides the brackets.
	bracketed = regexp.MustCompile(`^<(?:https?|steam)://[^\s<>]+>`)
	// openLink matches the beginning of a link at the end of a text.
	openLink = regexp.MustCompile(`(?:https?|steam)://[^\s<]*$`)
	// lineStart matches the beginning of a heading, a small text, a quote or a list, up to the character to escape.
	lineStart = regexp.MustCompile(`^[ \t]*(?:[#>+-]|[0-9]+\.)`)
)

// escapeMarkdown returns a text that Discord's client shows as plain text, equal to the given text. Bare links stay
// clickable. before is the text before it in the same message: a link can begin there.
func escapeMarkdown(before, text string) string {
	var b strings.Builder
	rest := text
	take := func(n int) {
		b.WriteString(rest[:n])
		rest = rest[n:]
	}
	if openLink.MatchString(before) {
		if end := strings.IndexAny(rest, " \t\n<"); end >= 0 {
			take(end)
		} else {
			take(len(rest))
		}
	}
	newLine := b.Len() == 0
	for rest != "" {
		if start := lineStart.FindString(rest); newLine && start != "" {
			take(len(start) - 1)
			b.WriteByte('\\')
			take(1)
		}
		newLine = false
		switch found := link.FindString(rest); {
		case rest == "":
		case found != "":
			take(len(found))
		case bracketed.MatchString(rest):
			n := strings.IndexByte(rest, '>') + 1
			b.WriteString(`\<`) // shown; the bracket of the link is hidden
			take(n)
			b.WriteString(`\>`)
		case strings.IndexByte("\\*_~|`<[]", rest[0]) >= 0:
			b.WriteByte('\\')
			take(1)
		default:
			newLine = rest[0] == '\n'
			take(1)
		}
	}
	return b.String()
}
