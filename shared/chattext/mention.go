package chattext

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Mentions reports whether a text mentions one of the names: @ and the name, in any case, as a whole word. Empty names
// are ignored. An e-mail address is no mention.
func Mentions(text string, names ...string) bool {
	for i := range len(text) {
		if MentionAt(text, i, names...) {
			return true
		}
	}
	return false
}

// MentionAt is [Mentions] for a mention at the byte i of the text.
func MentionAt(text string, i int, names ...string) bool {
	if text[i] != '@' {
		return false
	}
	if before, _ := utf8.DecodeLastRuneInString(text[:i]); i > 0 && inName(before) {
		return false // such as in an e-mail address
	}
	for _, name := range names {
		if _, ok := CutName(text[i+1:], name); ok {
			return true
		}
	}
	return false
}

// CutName removes a name, in any case, from the beginning of a text. The name must be a whole word there. A full stop
// inside a word belongs to the word: Discord's names and the names of hosts have full stops.
func CutName(text, name string) (rest string, ok bool) {
	if name == "" {
		return text, false
	}
	end := 0
	for range utf8.RuneCountInString(name) {
		if end >= len(text) {
			return text, false
		}
		_, size := utf8.DecodeRuneInString(text[end:])
		end += size
	}
	rest = text[end:]
	if !strings.EqualFold(text[:end], name) || rest != "" && inName(first(strings.TrimPrefix(rest, "."))) {
		return text, false
	}
	return rest, true
}

// first returns the first character of a text, or [utf8.RuneError] for an empty text.
func first(text string) rune {
	r, _ := utf8.DecodeRuneInString(text)
	return r
}

// inName includes letters of other scripts, because platforms show names in other scripts. An invisible mark, which
// programs append to a repeated message, joins no name.
func inName(r rune) bool {
	return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) && !Invisible(r)
}
