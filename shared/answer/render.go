package answer

import (
	"slices"
	"strings"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// Rendered is the text of an answer for its platform. [Rendered.Messages] makes the messages.
type Rendered struct {
	words
	platform identity.Platform
	template bool           // a template made the text
	escaped  bool           // inserted text has no markup
	relayed  bool           // the text goes to another address than its origin
	shape    forgeryPattern // what a relayed line begins with
}

// Render adapts the text of an answer to its platform. It knows three authors: an operator (the literal parts of a
// rule's template, see [TemplateMetadata]), people (text inserted into a template), and models or other programs (any
// other text). An operator may do more than the others:
//
//   - Mentions. On Discord, the gateway permits the operator's mentions ([LiteralParts]). A zero width space breaks all
//     other mentions in a relayed text. On Twitch, where nothing can be permitted, it breaks them in any text.
//     An operator's @ before an inserted name is a mention only in an answer at its origin.
//   - Commands: see [Rendered.Messages].
//   - Markup. Text inserted from another platform has no markup on Discord: backslashes keep it as typed.
//   - Lines. A line of a relayed text that could be taken for another relayed line begins with an arrow.
//
// Links and e-mail addresses stay whole. For a Twitch chat, the text is one line. For Twitch and Discord, the text has neither
// control characters nor invalid UTF-8.
func Render(e *event.Event) Rendered {
	to, _ := Platform(e) // without a platform, there is nothing to adapt to
	r := Rendered{platform: to, relayed: e.Egress != nil && e.Egress.Relay != nil}
	r.words, r.template = wordsOf(e)
	if r.relayed {
		r.words = r.remove(separatedMark).remove(mark)
	}
	if r.relayed || to == identity.Twitch || to == identity.Discord {
		r.words = r.clean()
	}
	r.words = r.trim()
	r.escaped = r.template && to == identity.Discord && identity.PlatformOf(e.Source) != identity.Discord
	if r.relayed {
		r.shape = shapeOf(r.words, r.template)
		r.words = r.markForgedLines(to == identity.Discord && !r.escaped)
	}
	switch to {
	case identity.Discord:
		if r.escaped {
			r.words = r.escapeMarkdown()
		}
		switch {
		case r.relayed:
			r.words = r.guardMentions(mentionsOnDiscord, Rendered.wholeOnDiscord)
		case r.ringsEveryone():
			r.words = r.guardMentions(everyoneOnDiscord, Rendered.wholeOnDiscord)
		}
	case identity.Twitch:
		if e.Egress == nil || e.Egress.Type != event.EgressDM { // whispers have lines, and notify their recipient only
			r.words = r.oneLine().trim()
			r.words = r.guardMentions(mentionsOnTwitch, Rendered.wholeOnTwitch)
		}
	}
	return r
}

// Piece is the part of a text that becomes one message: the bytes from From up to To.
type Piece struct {
	From, To      int
	Before, After string // added around the part, such as the fences of a divided code block
}

// Messages returns the messages of an answer, none for an empty text. divide divides a text into pieces of at most limit
// UTF-16 units each, including Before and After. Messages then adds invisible characters, and counts them:
//
//   - A zero width space before /, . or ! at the beginning of a message, where a bot, or Twitch, would see a command. White
//     space and invisible characters before the command do not count. An operator's literal text may begin a command,
//     except with / and . on Twitch, which Twitch takes as its own.
//   - The mark of a relayed text ([WasRelayed]) as the last word, outside of code blocks.
//
// A continued message that looks like another relayed line begins with an arrow. A relayed text without room for the
// mark in its only message goes unmarked, if the operator added words to the text: so every relay makes the text longer,
// and the next relay has to divide and mark it.
func (r Rendered) Messages(limit int, divide func(text string, limit int) []Piece) []string {
	pieces := divide(r.text, limit)
	messages := r.assemble(pieces, true)
	if !tooLong(messages, limit) {
		return messages
	}
	if len(pieces) == 1 && slices.Contains(r.own, true) {
		if unmarked := r.assemble(pieces, false); !tooLong(unmarked, limit) {
			return unmarked
		}
	}
	reserve := UTF16Length(guard + arrow)
	if r.relayed {
		reserve += UTF16Length(separatedMark)
	}
	return r.assemble(divide(r.text, limit-reserve), true)
}

// Whole returns the answer as a single message without a limit, as [Rendered.Messages] makes it.
func (r Rendered) Whole() string {
	if r.text == "" {
		return ""
	}
	return r.assemble([]Piece{{To: len(r.text)}}, true)[0]
}

func tooLong(messages []string, limit int) bool {
	return slices.ContainsFunc(messages, func(m string) bool { return UTF16Length(m) > limit })
}

func (r Rendered) assemble(pieces []Piece, marked bool) []string {
	var all []string
	for i, p := range pieces {
		w := r.slice(p.From, p.To)
		if p.Before == "" {
			if i > 0 && r.relayed && r.shape.matches(w) {
				w = w.insert(0, arrow)
			} else if start := lineStart.FindString(w.text); i > 0 && r.escaped && start != "" && !w.own[0] {
				w = w.insert(len(start)-1, `\`)
			}
			w = guardCommand(w, r.platform)
		}
		text := p.Before + w.text + p.After
		if r.relayed && marked {
			text = addMark(text, r.platform, i == 0)
		}
		all = append(all, text)
	}
	return all
}

// guardCommand inserts the guard before a command at the beginning of a message.
func guardCommand(w words, p identity.Platform) words {
	at := firstVisible(w.text)
	if at == len(w.text) || strings.IndexByte("/.!", w.text[at]) < 0 {
		return w
	}
	if w.own[at] && (p != identity.Twitch || w.text[at] == '!') {
		return w
	}
	return w.slice(at, len(w.text)).insert(0, guard)
}

// fence begins and ends a code block of Discord.
const fence = "```"

// addMark adds the mark to the end of a message. The platform shows a word after a code block as another line, so the
// mark is then before the block. A later message with nothing but code stays unmarked.
func addMark(text string, p identity.Platform, first bool) string {
	if p != identity.Discord || !strings.HasSuffix(text, fence) || strings.Count(text, fence)%2 != 0 {
		return text + separatedMark
	}
	start := strings.LastIndex(strings.TrimSuffix(text, fence), fence)
	head := strings.TrimRight(text[:start], " \n")
	switch {
	case head != "" && !strings.HasSuffix(head, fence):
		return head + separatedMark + text[len(head):]
	case first:
		return text + separatedMark
	}
	return text
}
