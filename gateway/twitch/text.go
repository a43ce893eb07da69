package twitch

import (
	"strings"
	"unicode"

	"parley.internal/shared/answer"
)

const (
	// maxMessage is how many characters a message may have
	// (https://dev.twitch.tv/docs/api/reference/#send-chat-message), counted in units.
	maxMessage = 500
	// maxParts bounds what one answer becomes: a channel without privileges takes a message a second, and an answer has
	// to be said within its claim.
	maxParts = 8
	// ellipsis ends an answer that was cut.
	ellipsis = "…"
	// guard stands before what Twitch, or a bot in the channel, would take for a command: a zero width space, which is
	// no white space to those who trim.
	guard = "\u200b"
)

// split makes the messages of a text: in one line each, without control characters, at most maxText long and split
// between words where that is possible, none of which is a command.
func split(text string) []string {
	words := strings.Fields(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), r == unicode.ReplacementChar:
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "")))
	var all []string
	var b strings.Builder
	length := 0
	end := func() {
		if length > 0 {
			all = append(all, b.String())
			b.Reset()
			length = 0
		}
	}
	for _, word := range words {
		n := answer.UTF16Length(word)
		if length > 0 && length+1+n <= maxMessage {
			b.WriteByte(' ')
			b.WriteString(word)
			length += 1 + n
			continue
		}
		end()
		for _, piece := range escapeCommand(word) {
			end()
			b.WriteString(piece)
			length = answer.UTF16Length(piece)
		}
	}
	end()
	if len(all) > maxParts {
		all = all[:maxParts]
		all[maxParts-1] = strings.TrimRight(answer.Truncate(all[maxParts-1], maxMessage-answer.UTF16Length(ellipsis)), " ") + ellipsis
	}
	return all
}

// escapeCommand makes of a word that begins a message the pieces that it has to be said in: one, where it fits into a
// message. Each begins no command (https://dev.twitch.tv/docs/chat/irc/#migrated-irc-commands; /me is left in IRC).
func escapeCommand(word string) []string {
	var pieces []string
	for word != "" {
		piece, length := "", 0
		if word[0] == '/' || word[0] == '.' {
			piece, length = guard, answer.UTF16Length(guard)
		}
		head := answer.Truncate(word, maxMessage-length)
		pieces = append(pieces, piece+head)
		word = word[len(head):]
	}
	return pieces
}
