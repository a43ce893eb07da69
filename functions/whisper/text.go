package whisper

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
)

// The longest whispers, to somebody who has never whispered to the bot and to somebody who has. Twitch cuts longer ones
// wherever the limit falls, and says nothing (https://dev.twitch.tv/docs/api/reference/#send-whisper).
const (
	maxFirst   = 500
	maxAnswers = 10_000
)

const ellipsis = '…'

// fit shortens a text to a number of characters, between two words where there are some. The note says that it did; it
// is empty if the text fits.
//
// Twitch doesn't say what a character is. Counting UTF-16 units, as JavaScript does, gives at least as many as counting
// code points, so what fits here fits there either way.
func fit(text string, limit int) (fitting, note string) {
	units, end := 0, -1 // end is where the longest beginning that leaves room for the ellipsis ends
	for i, r := range text {
		if end < 0 && units+utf16.RuneLen(r) > limit-1 {
			end = i
		}
		units += utf16.RuneLen(r)
	}
	if units <= limit {
		return text, ""
	}
	fitting = text[:end]
	if rest := text[end:]; !startsWithSpace(rest) {
		// a word that is longer than half of what fits is rather broken than left out
		if i := strings.LastIndexFunc(fitting, unicode.IsSpace); i > end/2 {
			fitting = fitting[:i]
		}
	}
	fitting = strings.TrimRightFunc(fitting, unicode.IsSpace) + string(ellipsis)
	return fitting, fmt.Sprintf("cut to %d of %d characters", count(fitting), units)
}

func startsWithSpace(s string) bool {
	for _, r := range s {
		return unicode.IsSpace(r)
	}
	return true
}

func count(s string) int {
	n := 0
	for _, r := range s {
		n += utf16.RuneLen(r)
	}
	return n
}
