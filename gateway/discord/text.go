package discord

import (
	"strings"
	"unicode"

	"parley.internal/shared/answer"
)

const (
	// maxText is how many characters a message may have
	// (https://discord.com/developers/docs/resources/message#create-message), counted in units.
	maxText = 2000
	// maxParts bounds what one answer becomes: a channel takes about a message a second, and an answer has to be said
	// within its claim.
	maxParts = 8
	// ellipsis ends an answer that was cut.
	ellipsis = "…"
	// ticks begin and end a block of code (https://support.discord.com/hc/en-us/articles/210298617).
	ticks = "```"
)

// parts makes the messages of a text: at most maxText long, split between lines, or words, where that is possible. A
// block of code that is split is closed in the one message and opened anew in the next.
func parts(text string) []string {
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

// splitter builds messages one after the other.
type splitter struct {
	parts   []string
	text    strings.Builder // of the message that is being built
	length  int             // of it
	content bool            // it has more than the opening of a block
	open    bool            // a block of code is open
	info    string          // what stood behind the ticks that opened it: the language
}

// after tells the state in which a piece leaves the block of code.
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
		info = "" // code, not the name of a language
	}
	return true, info
}

// fits reports whether a piece has room, together with what closes the block that would be open after it.
func (s *splitter) fits(piece string) bool {
	n := s.length + answer.UTF16Length(piece)
	if open, _ := s.after(piece); open {
		n += len("\n" + ticks)
	}
	return n <= maxText
}

func (s *splitter) add(piece string) {
	s.open, s.info = s.after(piece)
	s.text.WriteString(piece)
	s.length += answer.UTF16Length(piece)
	s.content = s.content || strings.TrimSpace(piece) != ""
}

// addWord adds what has no better place to be split; what is too long for a message is cut.
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

// end ends the message that is being built, and begins the next.
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
