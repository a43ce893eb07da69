package answer

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"parley.internal/shared/chattext"
)

// words is a text that knows its authors.
type words struct {
	text string
	own  []bool // for each byte: the operator wrote it literally
}

// foreign returns a text without a literal part.
func foreign(text string) words { return words{text, make([]bool, len(text))} }

func (w words) slice(from, to int) words { return words{w.text[from:to], w.own[from:to]} }

// allOwn reports whether the operator wrote all bytes of a part.
func (w words) allOwn(from, to int) bool {
	for _, own := range w.own[from:to] {
		if !own {
			return false
		}
	}
	return true
}

// rewrite changes a text from the left to the right. edit returns how many bytes at i to replace, and the replacement.
// With 0 bytes, the replacement is inserted before the byte at i, and the byte stays. A replacement has the author of
// the byte at i; an insertion is nobody's.
func (w words) rewrite(edit func(i int) (replaced int, by string)) words {
	var b strings.Builder
	own := make([]bool, 0, len(w.own))
	add := func(text string, literal bool) {
		b.WriteString(text)
		for range len(text) {
			own = append(own, literal)
		}
	}
	for i := 0; i < len(w.text); {
		n, by := edit(i)
		add(by, n > 0 && w.own[i])
		if n == 0 {
			add(w.text[i:i+1], w.own[i])
			n = 1
		}
		i += n
	}
	return words{b.String(), own}
}

// insert inserts a text before the byte at i.
func (w words) insert(i int, text string) words {
	own := append(append(append([]bool{}, w.own[:i]...), make([]bool, len(text))...), w.own[i:]...)
	return words{w.text[:i] + text + w.text[i:], own}
}

// remove removes all occurrences of a text.
func (w words) remove(text string) words {
	return w.rewrite(func(i int) (int, string) {
		if strings.HasPrefix(w.text[i:], text) {
			return len(text), ""
		}
		return 0, ""
	})
}

// trim removes white space from both ends.
func (w words) trim() words {
	from := len(w.text) - len(strings.TrimLeftFunc(w.text, unicode.IsSpace))
	return w.slice(from, max(from, len(strings.TrimRightFunc(w.text, unicode.IsSpace))))
}

// clean removes the characters that a gateway or a platform would remove later, because the removal could join the
// pieces of a mention. Line breaks become \n, and other white space that is a control character becomes a space.
func (w words) clean() words {
	return w.rewrite(func(i int) (int, string) {
		r, n := utf8.DecodeRuneInString(w.text[i:])
		switch {
		case r == '\n' || r == '\t':
			return 0, ""
		case strings.HasPrefix(w.text[i:], "\r\n"):
			return 1, ""
		case r == '\r' || r == '\v' || r == '\f' || r == '\u0085' || r == '\u2028' || r == '\u2029':
			return n, "\n"
		case unicode.IsControl(r) || r == unicode.ReplacementChar: // also invalid UTF-8
			return n, ""
		}
		return n, w.text[i : i+n]
	})
}

// oneLine replaces all white space by single spaces.
func (w words) oneLine() words {
	space := true
	return w.rewrite(func(i int) (int, string) {
		r, n := utf8.DecodeRuneInString(w.text[i:])
		before := space
		space = unicode.IsSpace(r)
		switch {
		case space && before:
			return n, ""
		case space:
			return n, " "
		}
		return n, w.text[i : i+n]
	})
}

// firstVisible returns the index of the first character that people can see, or the length of the text. A platform or a
// bot may remove the characters before.
func firstVisible(text string) int {
	for i, r := range text {
		if !chattext.Invisible(r) {
			return i
		}
	}
	return len(text)
}
