package answer

import "unicode/utf16"

// UTF16Length is a text's length in UTF-16 units. No platform says what it counts as a character; these, as JavaScript counts
// them, are never fewer than code points, so what fits by them fits either way.
func UTF16Length(text string) (n int) {
	for _, r := range text {
		n += utf16.RuneLen(r)
	}
	return n
}

// Truncate is the longest beginning of a text that has at most so many units, without breaking a character.
func Truncate(text string, units int) string {
	for i, r := range text {
		if units -= utf16.RuneLen(r); units < 0 {
			return text[:i]
		}
	}
	return text
}
