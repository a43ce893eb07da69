package twitch

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
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

// rateLimitPause is the pause after a message that came too fast.
const rateLimitPause = 2 * time.Second

// chatReasons maps Twitch's codes to dead-letter reasons. All other codes are platform_refused.
var chatReasons = map[string]deadletter.Reason{
	"msg_banned":                         deadletter.SenderRefused,
	"msg_channel_blocked":                deadletter.SenderRefused,
	"msg_followersonly":                  deadletter.SenderRefused,
	"msg_followersonly_followed":         deadletter.SenderRefused,
	"msg_followersonly_zero":             deadletter.SenderRefused,
	"msg_requires_verified_phone_number": deadletter.SenderRefused,
	"msg_subsonly":                       deadletter.SenderRefused,
	"msg_suspended":                      deadletter.SenderRefused,
	"msg_timedout":                       deadletter.SenderRefused,
	"msg_verified_email":                 deadletter.SenderRefused,
	"no_permission":                      deadletter.SenderRefused,
	"user_timed_out":                     deadletter.SenderRefused, // a drop_reason
	"user_warned":                        deadletter.SenderRefused, // a drop_reason

	"msg_channel_suspended": deadletter.RecipientRefused,
	"msg_room_not_found":    deadletter.RecipientRefused,

	codeRateLimit:  deadletter.RateLimited,
	"msg_slowmode": deadletter.RateLimited,
}

// codeRateLimit is the only code of a passing refusal.
const codeRateLimit = "msg_ratelimit"

// ChatRefusal maps Twitch's refusal of a chat message: a code and words from IRC's NOTICE or Helix's drop_reason. Twitch
// lists the codes of NOTICE (https://dev.twitch.tv/docs/chat/irc/#notice). A drop_reason has one of these codes, or a code
// of its own. Every refusal is final, except for msg_ratelimit.
func ChatRefusal(code, message string) *Error {
	e := &Error{Outcome: Refused, Reason: deadletter.PlatformRefused, Err: fmt.Errorf("refused by Twitch: %s: %s", code, message)}
	if reason, ok := chatReasons[code]; ok {
		e.Reason = reason
	}
	if code == codeRateLimit {
		e.Outcome, e.After = NotDone, rateLimitPause
	}
	return e
}
