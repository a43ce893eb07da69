package answer

import (
	"unicode/utf16"

	"github.com/clipperhouse/uax29/v2/graphemes"
)

// UTF16Length returns the length of a text in UTF-16 units, as JavaScript counts. The platforms do not document how
// they count characters. UTF-16 units are never fewer than code points, so a text within the limit fits either way.
func UTF16Length(text string) (n int) {
	for _, r := range text {
		n += utf16.RuneLen(r)
	}
	return n
}

// Truncate returns the longest beginning of a text with at most units UTF-16 units that ends between two grapheme
// clusters (https://www.unicode.org/reports/tr29/). A cluster is what people see as one character, such as a flag or a
// family emoji. Only a first cluster longer than units is cut, between code points.
func Truncate(text string, units int) string {
	if len(text) <= units { // no code point has more units than bytes
		return text
	}
	left := units
	for clusters := graphemes.FromString(text); clusters.Next(); {
		if left -= UTF16Length(clusters.Value()); left >= 0 {
			continue
		}
		if clusters.Start() > 0 {
			return text[:clusters.Start()]
		}
		return truncateCodePoints(text, units)
	}
	return text
}

func truncateCodePoints(text string, units int) string {
	for i, r := range text {
		if units -= utf16.RuneLen(r); units < 0 {
			return text[:i]
		}
	}
	return text
}
