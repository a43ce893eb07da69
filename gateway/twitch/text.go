package twitch

import (
	"strings"
	"unicode"

	"parley.internal/shared/answer"
)

const (
	// maxMessage is the maximum length of a message in UTF-16 units
	// (https://dev.twitch.tv/docs/api/reference/#send-chat-message).
	maxMessage = 500
	// maxParts is the maximum number of messages of an answer. A channel without privileges takes a message a second, and
	// an answer must be sent within its claim.
	maxParts = 8
	// ellipsis ends a shortened answer.
	ellipsis = "…"
	// guard precedes text that Twitch, or a bot in the channel, would take for a command. It is a zero width space, and so
	// not removed with white space.
	guard = "\u200b"
)

// split divides a text into messages: one line each, without control characters, at most maxMessage units long, divided
// between words if possible. No message is a command.
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

// escapeCommand divides the first word of a message into pieces: one piece, if the word fits into a message. No piece
// begins a command (https://dev.twitch.tv/docs/chat/irc/#migrated-irc-commands; IRC still has /me).
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
