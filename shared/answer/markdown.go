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
	// angled matches a link in angle brackets. Discord's client hides the brackets.
	angled = regexp.MustCompile(`^<(?:https?|steam)://[^\s<>]+>`)
	// openLink matches the beginning of a link at the end of a text.
	openLink = regexp.MustCompile(`(?:https?|steam)://[^\s<]*$`)
	// lineStart matches the beginning of a heading, a small text, a quote or a list, up to the character to escape.
	lineStart = regexp.MustCompile(`^[ \t]*(?:[#>+-]|[0-9]+\.)`)
)

// escapeMarkdown escapes the inserted parts of a text, so that Discord's client shows them as typed. Bare links stay
// clickable.
func (w words) escapeMarkdown() words {
	var out words
	offset, literal := 0, "" // of the runs before
	for _, run := range w.runs() {
		text := run.text
		if run.own[0] {
			literal += text
		} else {
			switch openCode(literal) {
			case "":
				text = escapeRun(w.text[:offset], run.text)
			case fence:
				text = strings.ReplaceAll(text, "`", "`"+guard) // a backslash would be shown
			default:
				text = strings.ReplaceAll(text, "`", "ˋ")
			}
		}
		out.text += text
		for range len(text) {
			out.own = append(out.own, run.own[0])
		}
		offset += len(run.text)
	}
	return out
}

// openCode returns the backquotes of the code that is open after an operator's literal text, or nothing.
func openCode(literal string) string {
	parts := strings.Split(literal, fence)
	if len(parts)%2 == 0 {
		return fence
	}
	if strings.Count(parts[len(parts)-1], "`")%2 == 1 {
		return "`"
	}
	return ""
}

// escapeRun escapes a text that follows before in the same message. A link or a line can begin in before.
func escapeRun(before, text string) string {
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
	lastLine := before[strings.LastIndexByte(before, '\n')+1:]
	newLine := b.Len() == 0 && firstVisible(lastLine) == len(lastLine)
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
		case angled.MatchString(rest):
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
