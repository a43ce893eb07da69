package discord

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/bwmarrin/discordgo"

	"parley.internal/gateway/moderator"
	"parley.internal/gateway/outbox"
	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/lease"
	"parley.internal/shared/moderation"
)

const (
	// takeover is how old an answer may be that another instance, or this one, began to say and did not bring to an end:
	// it is said again by the nonces that it was said by, which Discord knows for "the past few minutes"
	// (https://discord.com/developers/docs/resources/message#create-message). What is older is left to end as
	// outcome_unknown.
	takeover = 90 * time.Second
	// maxConversations is how many direct conversations' ids are remembered.
	maxConversations = 10_000
)

// speaker says answers while this instance has the session: those for one channel or person one after the other, those
// for several at the same time.
type speaker struct {
	*outbox.Dispatcher
	service *Service
	lease   lease.Lease
	gateway *gateway

	mu            sync.Mutex
	conversations map[string]string // their ids, by whom they are with
}

func newSpeaker(s *Service, l lease.Lease, g *gateway) *speaker {
	sp := &speaker{service: s, lease: l, gateway: g, conversations: map[string]string{}}
	sp.Dispatcher = outbox.NewDispatcher(outbox.Platform{Pending: sp.owed, Address: sp.address, Split: parts, Repeats: true}, outbox.Options{
		Ledger: s.ledger, Reaper: s.reaper, HoldsLease: l.Valid, Log: s.log, Now: s.now,
		Count:  func(outcome string) { s.metrics.answers.WithLabelValues(outcome).Inc() },
		Timing: s.timing.outbox(),
	})
	return sp
}

// outbox is the part of it that answers and orders have to do with.
func (t timing) outbox() outbox.Timing {
	return outbox.Timing{Scan: t.scan, Retry: t.retry, Backoff: t.minBackoff, MaxBackoff: t.maxBackoff, Claim: t.claim}
}

func (sp *speaker) owed(ctx context.Context) ([]delivery.Entry, error) {
	entries, err := sp.service.ledger.Unsettled(ctx, identity.Discord)
	now := sp.service.now()
	return slices.DeleteFunc(entries, func(e delivery.Entry) bool {
		return e.Type == event.EgressEvent || e.State == delivery.Claimed && now.Sub(e.OpenedAt) > takeover
	}), err
}

// recipient is where an answer goes: a channel, or a person.
type recipient struct {
	channel string // Discord's id
	user    string // Discord's id, if channel is empty
}

// recipientOf tells where an answer goes. A chat without a channel goes to its user alone.
func recipientOf(e *event.Event) (recipient, error) {
	direct := e.Egress != nil && e.Egress.Type == event.EgressDM
	if !direct && e.Channel != "" {
		id, ok := channelOf(e.Channel)
		if !ok {
			return recipient{}, fmt.Errorf("%q is not a channel of Discord (discord:ID)", e.Channel)
		}
		return recipient{channel: id}, nil
	}
	user, err := identity.Parse(e.UserID)
	if err != nil {
		return recipient{}, err
	}
	if _, ok := parseSnowflake(user.ID()); !ok || user.Platform() != identity.Discord {
		return recipient{}, fmt.Errorf("%q is not a user of Discord (discord:ID)", e.UserID)
	}
	return recipient{user: user.ID()}, nil
}

// address gives the voice of an answer. There is a line for each channel and each person.
func (sp *speaker) address(ref delivery.Ref, e *event.Event) (line string, _ outbox.Transport, err error) {
	to, err := recipientOf(e)
	v := &voice{speaker: sp, ref: ref, recipient: to}
	id := outbox.ReplyTarget(e, identity.Discord)
	if _, ok := parseSnowflake(id); ok && to.channel != "" {
		v.parent = id
	}
	return to.channel + "/" + to.user, v, err
}

// voice says one answer.
type voice struct {
	*speaker
	ref       delivery.Ref
	recipient        // its channel becomes that of the conversation with its user
	parent    string // what the first message replies to; empty if nothing
}

// Ready implements [outbox.Transport].
func (v *voice) Ready(ctx context.Context, part int) (o delivery.Outcome, ready bool) {
	if part == 0 && !v.gateway.up.Load() {
		return o, false
	}
	if v.channel == "" {
		var err error
		if v.channel, err = v.conversation(ctx, v.user); err != nil {
			return v.judge(err), false
		}
	}
	return o, v.service.rest.room(ctx, route(v.channel)) == nil
}

// Send implements [outbox.Transport].
func (v *voice) Send(ctx context.Context, part int, text string) delivery.Outcome {
	out := outgoing{Content: text, Nonce: nonce(v.ref, part), EnforceNonce: true, Mentions: noMentions}
	if part == 0 && v.parent != "" {
		out.Reference = &reference{v.parent, v.channel, false}
	}
	var said struct {
		ID string `json:"id"`
	}
	err := v.service.rest.do(ctx, http.MethodPost, route(v.channel), "channels/"+v.channel+"/messages", out, &said)
	f, failed := errors.AsType[*failure](err)
	switch {
	case !failed:
		return delivery.Outcome{Kind: delivery.Sent, Note: said.ID}
	case f.unknown:
		v.service.metrics.resent.Inc()
	case out.Reference != nil && decided(f) && (f.code == discordgo.ErrCodeInvalidFormBody || f.code == discordgo.ErrCodeCannotReplyWithoutPermissionToReadMessageHistory || f.code == discordgo.ErrCodeUnknownMessage):
		v.parent = "" // what is answered may be in another channel, or may not be read: answer without pointing at it
		return v.Send(ctx, part, text)
	}
	return v.judge(f)
}

// judge decides what it means that a request did not succeed. It is no failure if ctx ended before it was made.
func (v *voice) judge(err error) delivery.Outcome {
	f, failed := errors.AsType[*failure](err)
	switch {
	case !failed:
		return delivery.Outcome{}
	case f.unknown:
		return delivery.Outcome{Kind: delivery.Unknown, Reason: deadletter.PlatformUnavailable, Err: f}
	case decided(f):
		why := reason(f)
		return delivery.Outcome{Kind: delivery.Refused, Reason: why.Reason, Err: why.Err}
	case f.status == http.StatusUnauthorized: // the same as no connection, which is looked at again
		v.gateway.renew(fmt.Errorf("DISCORD_BOT_TOKEN is refused: %w", f.err))
		return delivery.Outcome{Err: f}
	case f.limited:
		return delivery.Outcome{Reason: deadletter.RateLimited, Err: f, After: f.after}
	}
	return delivery.Outcome{Reason: deadletter.PlatformUnavailable, Err: f, After: f.after}
}

// outgoing is a message as Discord takes it (https://discord.com/developers/docs/resources/message#create-message). The
// library's own has no nonce.
type outgoing struct {
	Content      string     `json:"content"`
	Nonce        string     `json:"nonce"`
	EnforceNonce bool       `json:"enforce_nonce"`
	Mentions     mentions   `json:"allowed_mentions"`
	Reference    *reference `json:"message_reference,omitempty"`
}

// mentions says who is notified (https://discord.com/developers/docs/resources/message#allowed-mentions-object).
type mentions struct {
	Parse       []string `json:"parse"`
	RepliedUser bool     `json:"replied_user"`
}

var noMentions = mentions{Parse: []string{}}

type reference struct {
	MessageID       string `json:"message_id"`
	ChannelID       string `json:"channel_id"`
	FailIfNotExists bool   `json:"fail_if_not_exists"`
}

// nonce tells Discord one message from another: at most 25 characters, and the same whenever the same message of the
// same attempt is sent.
func nonce(ref delivery.Ref, part int) string {
	return digest.Of("nonce", ref.ID, strconv.Itoa(ref.RedriveCount), strconv.Itoa(part))[:24]
}

// route is what Discord counts messages to a channel by.
func route(channel string) string { return "POST channels/" + channel + "/messages" }

// decided reports whether Discord will say the same to the same request later.
func decided(f *failure) bool {
	switch {
	case f.unknown || f.limited || f.status < 400 || f.status == http.StatusUnauthorized:
		return false
	case f.code == discordgo.ErrCodeOpeningDirectMessagesTooFast, f.code == discordgo.ErrCodeChannelHasHitWriteRateLimit,
		f.code == discordgo.ErrCodeTheWriteActionYouArePerformingOnTheServerHasHitTheWriteRateLimit,
		f.code == discordgo.ErrCodeThisActionCannotBePerformedDueToSlowmodeRateLimit,
		f.code == discordgo.ErrCodeSendMessagesHasBeenTemporarilyDisabled:
		return false
	}
	return true
}

// reason is what a refusal means. Its error has Discord's code and words.
func reason(f *failure) *deadletter.Error {
	err := fmt.Errorf("refused by Discord: %w", f.err)
	switch f.code {
	case discordgo.ErrCodeCannotSendMessagesToThisUser, discordgo.ErrCodeUnknownChannel, discordgo.ErrCodeUnknownUser,
		discordgo.ErrCodeUnknownMember, discordgo.ErrCodeUnknownGuild, discordgo.ErrCodeInvalidRecipients,
		discordgo.ErrCodeCannotExecuteActionOnThisChannelType, discordgo.ErrCodeThreadIsLocked,
		discordgo.ErrCodePerformedOperationOnArchivedThread, discordgo.ErrCodeExplicitContentCannotBeSentToTheDesiredRecipients:
		return deadletter.New(deadletter.RecipientRefused, err)
	case discordgo.ErrCodeMissingPermissions, discordgo.ErrCodeMissingAccess, discordgo.ErrCodeUnauthorized,
		discordgo.ErrCodeActionRequiredVerifiedAccount, discordgo.ErrCodeChannelVerificationLevelTooHigh,
		discordgo.ErrCodeBotsCannotUseEndpoint:
		return deadletter.New(deadletter.SenderRefused, err)
	}
	switch f.status {
	case http.StatusForbidden:
		return deadletter.New(deadletter.SenderRefused, err)
	case http.StatusNotFound:
		return deadletter.New(deadletter.RecipientRefused, err)
	}
	return deadletter.New(deadletter.PlatformRefused, err)
}

// conversation opens the direct conversation with somebody, which is always the same one
// (https://discord.com/developers/docs/resources/user#create-dm).
func (sp *speaker) conversation(ctx context.Context, user string) (string, error) {
	sp.mu.Lock()
	id := sp.conversations[user]
	sp.mu.Unlock()
	if id != "" {
		return id, nil
	}
	const route = "POST users/@me/channels"
	if err := sp.service.rest.room(ctx, route); err != nil {
		return "", err
	}
	var opened struct {
		ID string `json:"id"`
	}
	body := map[string]string{"recipient_id": user}
	if err := sp.service.rest.do(context.WithoutCancel(ctx), http.MethodPost, route, "users/@me/channels", body, &opened); err != nil {
		return "", err
	}
	if _, ok := parseSnowflake(opened.ID); !ok {
		return "", &failure{unknown: true, err: fmt.Errorf("%q is no id of a conversation", opened.ID)}
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if len(sp.conversations) >= maxConversations {
		clear(sp.conversations)
	}
	sp.conversations[user] = opened.ID
	return opened.ID, nil
}

// Deliver takes an answer or a moderator's order from the egress topic, if this instance has the bot's session. It
// returns before the answer is said, and nothing is lost by that: see [Service].
func (s *Service) Deliver(ctx context.Context, in bus.Incoming) error {
	ref, err := delivery.ParseRef(in)
	if err != nil {
		return err
	}
	s.mu.Lock()
	sp, m := s.speaker, s.moderator
	s.mu.Unlock()
	if sp == nil || !sp.lease.Valid() {
		return nil // another instance's, or the next owner's
	}
	switch e := in.Event; {
	case moderation.IsCommand(e):
		m.Enqueue(&moderator.Job{Job: delivery.Job{Ref: ref}, Event: e})
	case e.Egress == nil || e.Egress.Type != event.EgressEvent: // else another part's
		sp.Enqueue(ref, e)
	}
	return nil
}
