package twitch

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
)

// ScopeChat permits a token to send chat messages (https://dev.twitch.tv/docs/authentication/scopes/).
const ScopeChat = "user:write:chat"

// ChatMessage is a message for [Client.SendChat].
type ChatMessage struct {
	BroadcasterID string `json:"broadcaster_id"`
	SenderID      string `json:"sender_id"`
	Text          string `json:"message"` // at most 500 characters
	ReplyParent   string `json:"reply_parent_message_id,omitzero"`
}

// SendChat sends a message to a channel and returns Twitch's id of the message. It does not use the library, because the
// library loses the drop_reason. If Twitch refuses a reply with status 400, SendChat sends the message once more without
// the parent: the parent may have been deleted.
func (c *Client) SendChat(ctx context.Context, token credential.Token, m ChatMessage) (id string, e *Error) {
	id, e = c.sendChat(ctx, token, m)
	if e != nil && e.Status == http.StatusBadRequest && m.ReplyParent != "" {
		m.ReplyParent = ""
		return c.sendChat(ctx, token, m)
	}
	return id, e
}

func (c *Client) sendChat(ctx context.Context, token credential.Token, m ChatMessage) (id string, e *Error) {
	var answer struct {
		Data []struct {
			ID     string `json:"message_id"`
			IsSent bool   `json:"is_sent"`
			Drop   struct {
				Code    string `json:"code"`
				Message string `json:"message"`
			} `json:"drop_reason"`
		} `json:"data"`
	}
	if e := c.Send(ctx, token, SendChatMessage, http.MethodPost, "/chat/messages", m, &answer); e != nil {
		return "", e
	}
	if len(answer.Data) != 1 {
		return "", unreadable(SendChatMessage, fmt.Errorf("%d messages in data; want 1", len(answer.Data)))
	}
	if d := answer.Data[0]; !d.IsSent {
		return "", ChatRefusal(cmp.Or(d.Drop.Code, "dropped"), cmp.Or(d.Drop.Message, "Twitch dropped the message"))
	}
	return answer.Data[0].ID, nil
}

// chatReasons maps Twitch's codes of final refusals to dead-letter reasons. All other codes are platform_refused.
var chatReasons = map[string]deadletter.Reason{
	"msg_banned":                         deadletter.SenderRefused,
	"msg_channel_blocked":                deadletter.SenderRefused,
	"msg_followersonly":                  deadletter.SenderRefused,
	"msg_followersonly_followed":         deadletter.SenderRefused,
	"msg_followersonly_zero":             deadletter.SenderRefused,
	"msg_requires_verified_phone_number": deadletter.SenderRefused,
	"msg_subsonly":                       deadletter.SenderRefused,
	"msg_suspended":                      deadletter.SenderRefused,
	"msg_verified_email":                 deadletter.SenderRefused,
	"no_permission":                      deadletter.SenderRefused,
	"user_warned":                        deadletter.SenderRefused, // a drop_reason

	"msg_channel_suspended": deadletter.RecipientRefused,
	"msg_room_not_found":    deadletter.RecipientRefused,
}

// pass describes a refusal that ends by itself.
type pass struct {
	reason deadletter.Reason // of the dead letter, if the refusal lasts until the answer's deadline
	pause  time.Duration     // before the next attempt
	told   bool              // Twitch's words may name the remaining seconds, instead of pause
}

// passing lists the codes of the refusals that end by themselves. Twitch tells the remaining time only over IRC, and
// only for slow mode and time-outs (https://github.com/twitchdev/issues/issues/1002).
//
// A duplicate waits until Twitch accepts the same text again, 30 seconds after the first message. Parley does not add an
// invisible character to the text, as some bots do: people would see the same answer twice, and other programs would
// read another text than the recorded answer.
var passing = map[string]pass{
	"msg_duplicate":  {deadletter.RateLimited, 5 * time.Second, false},
	"msg_ratelimit":  {deadletter.RateLimited, 2 * time.Second, false},
	"msg_slowmode":   {deadletter.RateLimited, 5 * time.Second, true},
	"msg_timedout":   {deadletter.SenderRefused, 5 * time.Second, true},
	"user_timed_out": {deadletter.SenderRefused, 5 * time.Second, true}, // a drop_reason
}

// secondsLeft finds the remaining time in Twitch's words: "You are timed out for 6 more seconds." or "You will be able
// to talk again in 12 seconds."
var secondsLeft = regexp.MustCompile(`(\d{1,9})(?: more)? seconds?\b`)

// ChatRefusal maps Twitch's refusal of a chat message: a code and words from IRC's NOTICE or Helix's drop_reason. Twitch
// lists the codes of NOTICE (https://dev.twitch.tv/docs/chat/irc/#notice). A drop_reason has one of these codes, or another
// code. A refusal that ends by itself is [NotDone], with the pause before another attempt: a duplicate of the last
// message, slow mode, a message too fast, and a time-out of the bot. Every other refusal is final.
func ChatRefusal(code, message string) *Error {
	e := &Error{Outcome: Refused, Reason: deadletter.PlatformRefused, Err: fmt.Errorf("refused by Twitch: %s: %s", code, message)}
	if reason, ok := chatReasons[code]; ok {
		e.Reason = reason
	}
	if p, ok := passing[code]; ok {
		e.Outcome, e.Reason, e.After, e.Passes = NotDone, p.reason, p.pause, true
		if left := secondsLeft.FindStringSubmatch(message); p.told && left != nil {
			n, _ := strconv.Atoi(left[1]) // at most nine digits
			e.After = max(time.Duration(n)*time.Second, time.Second)
		}
	}
	return e
}
