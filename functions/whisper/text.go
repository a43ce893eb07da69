package whisper

import (
	"fmt"
	"strings"
	"unicode"

	"parley.internal/shared/answer"
)

// The longest whispers: to a new recipient, and to a user who has whispered to the bot. Twitch silently cuts longer
// texts at the limit (https://dev.twitch.tv/docs/api/reference/#send-whisper).
const (
	maxFirst   = 500
	maxAnswers = 10_000
)

const ellipsis = '…'

// fit shortens a text to a number of characters, counted in UTF-16 units, between two words if possible. The note reports
// the cut; it is empty if the text fits.
func fit(text string, limit int) (fitting, note string) {
	units := answer.UTF16Length(text)
	if units <= limit {
		return text, ""
	}
	fitting = answer.Truncate(text, limit-1)
	end := len(fitting)
	if !startsWithSpace(text[end:]) {
		// a word longer than half of the limit is split rather than left out
		if i := strings.LastIndexFunc(fitting, unicode.IsSpace); i > end/2 {
			fitting = fitting[:i]
		}
	}
	fitting = strings.TrimRightFunc(fitting, unicode.IsSpace) + string(ellipsis)
	return fitting, fmt.Sprintf("cut to %d of %d characters", answer.UTF16Length(fitting), units)
}

func startsWithSpace(s string) bool {
	for _, r := range s {
		return unicode.IsSpace(r)
	}
	return true
}
