package discord

import (
	"strings"
	"unicode"

	"parley.internal/shared/answer"
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

// splitMessage splits a text into at most maxParts messages of at most maxText units. It splits between lines or words
// if possible. A split code block is closed at the end of a message and opened again in the next message. The result
// is nil if the text has no printable character.
func splitMessage(text string) []string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	text = strings.TrimSpace(text)
	if text == "" {
		return nil
	}
	if answer.UTF16Length(text) <= maxText {
		return []string{text}
	}
	var s splitter
	for line := range strings.Lines(text) {
		if !s.fits(line) {
			s.end()
		}
		if s.fits(line) {
			s.add(line)
			continue
		}
		for _, word := range strings.SplitAfter(line, " ") {
			s.addWord(word)
		}
	}
	s.end()
	if len(s.parts) <= maxParts {
		return s.parts
	}
	last := s.parts[maxParts-1]
	closing := ""
	if strings.Count(last, ticks) > 0 && strings.HasSuffix(last, "\n"+ticks) {
		last, closing = strings.TrimSuffix(last, "\n"+ticks), "\n"+ticks
	}
	last = answer.Truncate(last, maxText-answer.UTF16Length(ellipsis)-answer.UTF16Length(closing))
	return append(s.parts[:maxParts-1:maxParts-1], strings.TrimRight(last, " \n")+ellipsis+closing)
}

// splitter builds the messages of a text in order.
type splitter struct {
	parts   []string        // finished messages
	text    strings.Builder // text of the current message
	length  int             // length of text in UTF-16 units
	content bool            // text has more than the opening of a code block
	open    bool            // a code block is open
	info    string          // language of the open code block
}

// after returns the state of the code block after a piece of text.
func (s *splitter) after(piece string) (open bool, info string) {
	if strings.Count(piece, ticks)%2 == 0 {
		return s.open, s.info
	}
	if s.open {
		return false, ""
	}
	info = strings.TrimSpace(piece[strings.LastIndex(piece, ticks)+len(ticks):])
	if strings.ContainsFunc(info, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("+-_#.", r)
	}) || len(info) > 30 {
		info = "" // the first line of the code, not a language
	}
	return true, info
}

// fits reports whether the current message has room for a piece of text and for the end of an open code block.
func (s *splitter) fits(piece string) bool {
	n := s.length + answer.UTF16Length(piece)
	if open, _ := s.after(piece); open {
		n += len("\n" + ticks)
	}
	return n <= maxText
}

// add appends a piece of text to the current message.
func (s *splitter) add(piece string) {
	s.open, s.info = s.after(piece)
	s.text.WriteString(piece)
	s.length += answer.UTF16Length(piece)
	s.content = s.content || strings.TrimSpace(piece) != ""
}

// addWord adds a word. It cuts a word longer than a message.
func (s *splitter) addWord(word string) {
	if !s.fits(word) {
		s.end()
	}
	for !s.fits(word) {
		head := answer.Truncate(word, maxText-s.length-len("\n"+ticks))
		s.add(head)
		s.end()
		word = word[len(head):]
	}
	s.add(word)
}

// end finishes the current message and starts the next one.
func (s *splitter) end() {
	if s.content {
		text := strings.Trim(s.text.String(), "\n")
		if text = strings.TrimRight(text, " \n"); s.open {
			text += "\n" + ticks
		}
		s.parts = append(s.parts, text)
	}
	s.text.Reset()
	s.length, s.content = 0, false
	if s.open {
		opening := ticks + s.info + "\n"
		s.text.WriteString(opening)
		s.length = answer.UTF16Length(opening)
	}
}
