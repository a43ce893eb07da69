package discord

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/bwmarrin/discordgo"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/digest"
)

// transport sends the messages of one answer. It implements [outbox.Transport].
type transport struct {
	*dispatcher
	ref       delivery.Ref
	recipient          // for a user, Ready sets channel to the direct conversation
	parent    string   // id of the message that the first message replies to; empty for none
	mentions  mentions // by the operator, in the whole answer
}

// Ready implements [outbox.Transport].
func (t *transport) Ready(ctx context.Context, part int) (o delivery.Outcome, ready bool) {
	if part == 0 && !t.gateway.connected.Load() {
		return o, false
	}
	if t.channel == "" {
		var err error
		if t.channel, err = t.conversation(ctx, t.user); err != nil {
			return t.outcomeOf(err), false
		}
	}
	return o, t.service.rest.waitForRoom(ctx, messageRoute(t.channel)) == nil
}

// Send implements [outbox.Transport].
func (t *transport) Send(ctx context.Context, part int, text string) delivery.Outcome {
	out := outgoing{Content: text, Nonce: nonce(t.ref, part), EnforceNonce: true, Mentions: t.mentions.in(text)}
	if part == 0 && t.parent != "" {
		out.Reference = &reference{t.parent, t.channel, false}
	}
	var sent struct {
		ID string `json:"id"`
	}
	err := t.service.rest.do(ctx, http.MethodPost, messageRoute(t.channel), "channels/"+t.channel+"/messages", out, &sent)
	f, failed := errors.AsType[*failure](err)
	switch {
	case !failed:
		return delivery.Outcome{Kind: delivery.Sent, Note: sent.ID}
	case f.unknown:
		t.service.metrics.resent.Inc()
	case out.Reference != nil && f.permanent() && (f.code == discordgo.ErrCodeInvalidFormBody || f.code == discordgo.ErrCodeCannotReplyWithoutPermissionToReadMessageHistory || f.code == discordgo.ErrCodeUnknownMessage):
		t.parent = "" // the parent is in a different channel, deleted or unreadable: send without a reference
		return t.Send(ctx, part, text)
	}
	return t.outcomeOf(f)
}

// outcomeOf returns the outcome for the error of a request. An error other than a [*failure] means that ctx ended before
// the request.
func (t *transport) outcomeOf(err error) delivery.Outcome {
	f, failed := errors.AsType[*failure](err)
	switch {
	case !failed:
		return delivery.Outcome{}
	case f.unknown:
		return delivery.Outcome{Kind: delivery.Unknown, Reason: deadletter.PlatformUnavailable, Err: f}
	case f.permanent():
		refusal := f.deadLetterError()
		return delivery.Outcome{Kind: delivery.Refused, Reason: refusal.Reason, Err: refusal.Err}
	case f.status == http.StatusUnauthorized: // wait for a connection with a valid token
		t.gateway.reconnect(fmt.Errorf("DISCORD_BOT_TOKEN is refused: %w", f.err))
		return delivery.Outcome{Err: f}
	case f.limited:
		return delivery.Outcome{Reason: deadletter.RateLimited, Err: f, After: f.retryAfter}
	}
	return delivery.Outcome{Reason: deadletter.PlatformUnavailable, Err: f, After: f.retryAfter}
}

// outgoing is the body of a request to send a message (https://discord.com/developers/docs/resources/message#create-message).
// discordgo's own type has no nonce.
type outgoing struct {
	Content      string     `json:"content"`
	Nonce        string     `json:"nonce"`
	EnforceNonce bool       `json:"enforce_nonce"`
	Mentions     mentions   `json:"allowed_mentions"`
	Reference    *reference `json:"message_reference,omitempty"`
}

type reference struct {
	MessageID       string `json:"message_id"`
	ChannelID       string `json:"channel_id"`
	FailIfNotExists bool   `json:"fail_if_not_exists"`
}

// nonce returns the nonce of a message: at most 25 characters, different for each message of each redrive, and the same
// for every attempt to send the same message.
func nonce(ref delivery.Ref, part int) string {
	return digest.Of("nonce", ref.ID, strconv.Itoa(ref.RedriveCount), strconv.Itoa(part))[:24]
}

// messageRoute is the rate-limit route for sending messages to a channel.
func messageRoute(channel string) string { return "POST channels/" + channel + "/messages" }
