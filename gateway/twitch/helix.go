package twitch

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"parley.internal/shared/credential"
	"parley.internal/shared/delivery"
)

// scopeWrite lets a token speak by Helix (https://dev.twitch.tv/docs/authentication/scopes/).
const scopeWrite = "user:write:chat"

// outcome is what became of one message.
type outcome struct {
	kind  delivery.Kind
	id    string        // Twitch's of the message, where it said one
	code  string        // of a refusal, or of what stands in the way
	err   error         // nil if it was said
	after time.Duration // before it makes sense to try again
}

const (
	said    = delivery.Sent
	refused = delivery.Refused
	notMade = delivery.NotSent
	unknown = delivery.Unknown
)

// What stands in the way where Twitch has no code of its own for it.
const (
	codeRateLimit    = "msg_ratelimit"
	codeUnauthorized = "twitch_unauthorized"
	codeUnavailable  = "twitch_unavailable"
	codeForbidden    = "twitch_forbidden"
	codeBadRequest   = "twitch_bad_request"
	codeTooLarge     = "twitch_too_large"
)

// helix speaks by https://dev.twitch.tv/docs/api/reference/#send-chat-message. The library for Helix is not used for
// it: it loses drop_reason, and whether a request was sent at all when it failed.
type helix struct {
	client   *http.Client
	url      string
	clientID string
	bot      credential.Token
	botID    string
	timeout  time.Duration
	now      func() time.Time
}

type chatMessage struct {
	BroadcasterID string `json:"broadcaster_id"`
	SenderID      string `json:"sender_id"`
	Message       string `json:"message"`
	ReplyParent   string `json:"reply_parent_message_id,omitzero"`
}

// say sends one message. A 401 is told apart by its code, codeUnauthorized.
func (h helix) say(ctx context.Context, broadcasterID, text, parent string) outcome {
	o := h.post(ctx, chatMessage{broadcasterID, h.botID, text, parent})
	if o.kind == refused && o.code == codeBadRequest && parent != "" {
		// the message that asked may have been deleted meanwhile: answer without pointing at it
		o = h.post(ctx, chatMessage{broadcasterID, h.botID, text, ""})
	}
	return o
}

func (h helix) post(ctx context.Context, m chatMessage) outcome {
	body, err := json.Marshal(m)
	if err != nil {
		return outcome{kind: refused, code: codeBadRequest, err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url+"/chat/messages", bytes.NewReader(body))
	if err != nil {
		return outcome{kind: notMade, code: codeUnavailable, err: err}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Client-Id", h.clientID)
	req.Header.Set("Authorization", "Bearer "+h.bot.Access.Reveal())
	res, err := h.client.Do(req)
	if err != nil {
		if !connected.Load() {
			return outcome{kind: notMade, code: codeUnavailable, err: fmt.Errorf("connect to Twitch: %w", err)}
		}
		return outcome{kind: unknown, err: fmt.Errorf("no answer from Twitch: %w", err)}
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil && res.StatusCode == http.StatusOK {
		return outcome{kind: unknown, err: fmt.Errorf("the answer from Twitch broke off: %w", err)}
	}
	return h.judge(res, data)
}

func (h helix) judge(res *http.Response, data []byte) outcome {
	var answer struct {
		Message string `json:"message"`
		Data    []struct {
			ID     string `json:"message_id"`
			IsSent bool   `json:"is_sent"`
			Drop   *struct {
				Code    string `json:"code"`
				Message string `json:"message"`
			} `json:"drop_reason"`
		} `json:"data"`
	}
	unreadable := json.Unmarshal(data, &answer)
	failed := fmt.Errorf("answer %d from Twitch: %s", res.StatusCode, cmp.Or(answer.Message, http.StatusText(res.StatusCode)))
	switch res.StatusCode {
	case http.StatusOK:
		if unreadable != nil || len(answer.Data) != 1 {
			return outcome{kind: unknown, err: errors.New("the answer from Twitch can't be read")}
		}
		d := answer.Data[0]
		if d.IsSent {
			return outcome{kind: said, id: d.ID}
		}
		code, message := "dropped", "Twitch dropped it"
		if d.Drop != nil {
			code, message = cmp.Or(d.Drop.Code, code), cmp.Or(d.Drop.Message, message)
		}
		return refusal(code, message)
	case http.StatusTooManyRequests:
		return outcome{kind: notMade, code: codeRateLimit, err: failed, after: untilReset(res.Header, h.now())}
	case http.StatusServiceUnavailable:
		// other 5xx may come after the message was taken
		return outcome{kind: notMade, code: codeUnavailable, err: failed}
	case http.StatusUnauthorized:
		return outcome{kind: notMade, code: codeUnauthorized, err: failed}
	case http.StatusForbidden:
		return outcome{kind: refused, code: codeForbidden, err: failed}
	case http.StatusUnprocessableEntity:
		return outcome{kind: refused, code: codeTooLarge, err: failed}
	}
	if res.StatusCode >= 400 && res.StatusCode < 500 {
		return outcome{kind: refused, code: codeBadRequest, err: failed}
	}
	return outcome{kind: unknown, err: failed}
}

// refusal is what Twitch's own codes mean, which are the same in drop_reason and in NOTICE
// (https://dev.twitch.tv/docs/chat/irc/#notice). All are decided, but being too fast, which passes.
func refusal(code, message string) outcome {
	err := fmt.Errorf("refused by Twitch: %s: %s", code, message)
	if code == codeRateLimit {
		return outcome{kind: notMade, code: code, err: err, after: 2 * time.Second}
	}
	return outcome{kind: refused, code: code, err: err}
}
