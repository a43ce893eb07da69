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
func Truncate(text string, units int) string { return truncate(text, units, utf16.RuneLen) }

// TruncateCodePoints is [Truncate] with a limit of code points.
func TruncateCodePoints(text string, limit int) string {
	return truncate(text, limit, func(rune) int { return 1 })
}

func truncate(text string, limit int, length func(rune) int) string {
	if len(text) <= limit { // no code point has more units than bytes
		return text
	}
	left := limit
	for clusters := graphemes.FromString(text); clusters.Next(); {
		for _, r := range clusters.Value() {
			left -= length(r)
		}
		switch {
		case left >= 0:
		case clusters.Start() > 0:
			return text[:clusters.Start()]
		default:
			return truncateInside(clusters.Value(), limit, length)
		}
	}
	return text
}

// truncateInside cuts a cluster.
func truncateInside(cluster string, limit int, length func(rune) int) string {
	for i, r := range cluster {
		if limit -= length(r); limit < 0 {
			return cluster[:i]
		}
	}
	return cluster
}
