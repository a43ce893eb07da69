package answer

import "unicode/utf16"

// UTF16Length returns the length of a text in UTF-16 units, as JavaScript counts. The platforms do not document how
// they count characters. UTF-16 units are never fewer than code points, so a text within the limit fits either way.
func UTF16Length(text string) (n int) {
	for _, r := range text {
		n += utf16.RuneLen(r)
	}
	return n
}

// Truncate returns the longest beginning of a text with at most units UTF-16 units. It does not split a character.
func Truncate(text string, units int) string {
	for i, r := range text {
		if units -= utf16.RuneLen(r); units < 0 {
			return text[:i]
		}
	}
	return text
}
