package twitch

import (
	"strings"

	"parley.internal/shared/answer"
	"parley.internal/shared/event"
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
)

// messages returns the chat messages of an answer: one line each, at most maxMessage units long. No message is a command
// (https://dev.twitch.tv/docs/chat/irc/#migrated-irc-commands; IRC still has /me).
func messages(e *event.Event) []string { return answer.Render(e).Messages(maxMessage, divide) }

// divide divides a line into at most maxParts pieces of at most limit units, between words if possible. Words are
// separated by single spaces.
func divide(line string, limit int) []answer.Piece {
	var all []answer.Piece
	for from := 0; from < len(line); {
		if len(all) == maxParts {
			last := &all[maxParts-1]
			shorter := answer.Truncate(line[last.From:last.To], limit-answer.UTF16Length(ellipsis))
			last.To, last.After = last.From+len(strings.TrimRight(shorter, " ")), ellipsis
			break
		}
		to := from + len(answer.Truncate(line[from:], limit))
		if to < len(line) && line[to] != ' ' {
			if space := strings.LastIndexByte(line[from:to], ' '); space > 0 {
				to = from + space
			}
		}
		all = append(all, answer.Piece{From: from, To: len(strings.TrimRight(line[:to], " "))})
		for from = to; from < len(line) && line[from] == ' '; from++ {
		}
	}
	return all
}
