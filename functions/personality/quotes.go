package personality

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// wrappers are the quotes that models often put around an answer.
var wrappers = [][2]string{
	{`"`, `"`}, {`'`, `'`}, {"“", "”"}, {"‘", "’"}, {"«", "»"}, {"»", "«"}, {"„", "“"}, {"„", "”"}, {"‹", "›"}, {"「", "」"}, {"『", "』"}, {"`", "`"},
}

// unquote removes up to two layers of quotes around a model's whole text, and the white space around. Quotes around only
// a part of the text stay, as in "a" and "b". People's and operators' texts keep all their quotes.
func unquote(text string) string {
	text = strings.TrimSpace(text)
	for range 2 {
		inner, ok := unwrap(text)
		if !ok {
			break
		}
		text = inner
	}
	return text
}

// unwrap removes one layer of quotes.
func unwrap(text string) (string, bool) {
	for _, w := range wrappers {
		inner, ok := strings.CutPrefix(text, w[0])
		if !ok {
			continue
		}
		if inner, ok = strings.CutSuffix(inner, w[1]); !ok {
			continue
		}
		if !quoted(inner, w) {
			return strings.TrimSpace(inner), true
		}
		// an inner layer may use the same quotes: ""x""
		if core, ok := strings.CutPrefix(inner, w[0]); ok && w[0] == w[1] {
			if core, ok = strings.CutSuffix(core, w[0]); ok && !quoted(core, w) {
				return strings.TrimSpace(inner), true
			}
		}
	}
	return text, false
}

// quoted reports whether a text holds one of the quotes. An apostrophe between two letters is not a quote.
func quoted(text string, quotes [2]string) bool {
	for _, q := range quotes {
		for before, after, found := strings.Cut(text, q); found; before, after, found = strings.Cut(after, q) {
			last, _ := utf8.DecodeLastRuneInString(before)
			first, _ := utf8.DecodeRuneInString(after)
			if q != "'" && q != "’" || !unicode.IsLetter(last) || !unicode.IsLetter(first) {
				return true
			}
		}
	}
	return false
}
