package discord

import (
	"strings"
	"unicode"

	"parley.internal/shared/answer"
	"parley.internal/shared/event"
)

const (
	// maxText is the maximum length of a message in UTF-16 units
	// (https://discord.com/developers/docs/resources/message#create-message).
	maxText = 2000
	// maxParts is the maximum number of messages of an answer. A channel accepts about one message per second, and an
	// answer must be sent within its claim.
	maxParts = 8
	// ellipsis ends a truncated answer.
	ellipsis = "…"
	// ticks start and end a code block (https://support.discord.com/hc/en-us/articles/210298617).
	ticks = "```"
)

// messages returns the messages of an answer, at most maxText units long each.
func messages(e *event.Event) []string { return answer.Render(e).Messages(maxText, divide) }

// divide divides a text into at most maxParts pieces of at most limit units. It divides between lines or words if
// possible. A divided code block is closed at the end of a message and opened again in the next message.
func divide(text string, limit int) []answer.Piece {
	if text == "" {
		return nil
	}
	if answer.UTF16Length(text) <= limit {
		return []answer.Piece{{To: len(text)}}
	}
	d := divider{text: text, limit: limit}
	for line := range strings.Lines(text) {
		if !d.fits(line) {
			d.end()
		}
		if d.fits(line) {
			d.add(line)
			continue
		}
		for _, word := range strings.SplitAfter(line, " ") {
			d.addWord(word)
		}
	}
	d.end()
	if len(d.pieces) <= maxParts {
		return d.pieces
	}
	last := &d.pieces[maxParts-1]
	last.After = ellipsis + last.After
	room := limit - answer.UTF16Length(last.Before+last.After)
	last.To = last.From + len(strings.TrimRight(answer.Truncate(text[last.From:last.To], room), " \n"))
	return d.pieces[:maxParts]
}

// divider makes the pieces of a text in order.
type divider struct {
	text  string
	limit int

	pieces   []answer.Piece // finished pieces
	from, to int            // the current piece
	before   string         // opening of the code block that the current piece continues
	length   int            // length of the current piece in UTF-16 units
	content  bool           // the current piece has more than white space
	open     bool           // a code block is open
	info     string         // language of the open code block
}

// after returns the state of the code block after a part of the text.
func (d *divider) after(part string) (open bool, info string) {
	if strings.Count(part, ticks)%2 == 0 {
		return d.open, d.info
	}
	if d.open {
		return false, ""
	}
	info = strings.TrimSpace(part[strings.LastIndex(part, ticks)+len(ticks):])
	if strings.ContainsFunc(info, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("+-_#.", r)
	}) || len(info) > 30 {
		info = "" // the first line of the code, not a language
	}
	return true, info
}

// fits reports whether the current piece has room for a part of the text and for the end of an open code block.
func (d *divider) fits(part string) bool {
	n := d.length + answer.UTF16Length(part)
	if open, _ := d.after(part); open {
		n += len("\n" + ticks)
	}
	return n <= d.limit
}

// add appends the next part of the text to the current piece.
func (d *divider) add(part string) {
	d.open, d.info = d.after(part)
	d.to += len(part)
	d.length += answer.UTF16Length(part)
	d.content = d.content || strings.TrimSpace(part) != ""
}

// addWord adds a word. It cuts a word longer than a message.
func (d *divider) addWord(word string) {
	if !d.fits(word) {
		d.end()
	}
	for !d.fits(word) {
		head := answer.Truncate(word, d.limit-d.length-len("\n"+ticks))
		if backslashes := len(head) - len(strings.TrimRight(head, `\`)); backslashes%2 == 1 && backslashes < len(head) {
			head = head[:len(head)-1] // an escaped character stays behind its backslash
		}
		d.add(head)
		d.end()
		word = word[len(head):]
	}
	d.add(word)
}

// end finishes the current piece and starts the next one.
func (d *divider) end() {
	if d.content {
		p := answer.Piece{From: d.from, To: d.to, Before: d.before}
		if p.Before == "" {
			p.From += len(d.text[p.From:p.To]) - len(strings.TrimLeft(d.text[p.From:p.To], "\n"))
		}
		p.To = p.From + len(strings.TrimRight(d.text[p.From:p.To], " \n"))
		if d.open {
			p.After = "\n" + ticks
		}
		d.pieces = append(d.pieces, p)
	}
	d.from = d.to
	d.before, d.length, d.content = "", 0, false
	if d.open {
		d.before = ticks + d.info + "\n"
		d.length = answer.UTF16Length(d.before)
	}
}
