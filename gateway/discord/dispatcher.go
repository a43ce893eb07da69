package discord

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"parley.internal/gateway/moderator"
	"parley.internal/gateway/outbox"
	"parley.internal/shared/bus"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/lease"
	"parley.internal/shared/moderation"
)

const (
	// maxResendAge is the maximum age of an unfinished answer for sending again. Discord remembers nonces for "the past few
	// minutes" (https://discord.com/developers/docs/resources/message#create-message), so a younger answer cannot appear
	// twice. An older answer ends as outcome_unknown.
	maxResendAge = 90 * time.Second
	// maxConversations is the capacity of the cache of direct conversations.
	maxConversations = 10_000
)

// dispatcher sends answers while this instance holds the lease. Answers for one channel or user are sent in order;
// answers for different channels are sent concurrently.
type dispatcher struct {
	*outbox.Dispatcher
	service *Service
	lease   lease.Lease
	gateway *gateway

	mu            sync.Mutex
	conversations map[string]string // ids of direct conversations, by user id
}

func newDispatcher(s *Service, l lease.Lease, g *gateway) *dispatcher {
	d := &dispatcher{service: s, lease: l, gateway: g, conversations: map[string]string{}}
	d.Dispatcher = outbox.NewDispatcher(outbox.Platform{Pending: d.pending, Address: d.address, Split: messages, Repeats: true}, outbox.Options{
		Ledger: s.ledger, Reaper: s.reaper, HoldsLease: l.Valid, Log: s.log, Now: s.now,
		Count:  func(outcome string) { s.metrics.answers.WithLabelValues(outcome).Inc() },
		Timing: s.timing.outbox(),
	})
	return d
}

// Deliver accepts an answer or a moderation command from the egress topic if this instance holds the lease. It returns
// before the answer is sent; see [Service] for why no answer is lost.
func (s *Service) Deliver(ctx context.Context, in bus.Incoming) error {
	ref, err := delivery.ParseRef(in)
	if err != nil {
		return err
	}
	s.mu.Lock()
	d, enforcer := s.dispatcher, s.enforcer
	s.mu.Unlock()
	if d == nil || !d.lease.Valid() {
		return nil // the lease holder, now or later, delivers it
	}
	switch e := in.Event; {
	case moderation.IsCommand(e):
		enforcer.Enqueue(&moderator.Job{Job: delivery.Job{Ref: ref}, Event: e})
	case e.Egress == nil || e.Egress.Type != event.EgressEvent: // events are for package websocket
		d.Enqueue(ref, e)
	}
	return nil
}

// pending returns the ledger's unsettled answers for Discord, except claimed answers too old for sending again.
func (d *dispatcher) pending(ctx context.Context) ([]delivery.Entry, error) {
	entries, err := d.service.ledger.Unsettled(ctx, identity.Discord)
	now := d.service.now()
	return slices.DeleteFunc(entries, func(e delivery.Entry) bool {
		return e.Type == event.EgressEvent || e.State == delivery.Claimed && now.Sub(e.OpenedAt) > maxResendAge
	}), err
}

// recipient is the channel or the user that an answer is for.
type recipient struct {
	channel string // Discord's id
	user    string // Discord's id; set if channel is empty
}

// recipientOf returns the recipient of an answer: the channel, or the user if the answer is private or has no channel.
func recipientOf(e *event.Event) (recipient, error) {
	direct := e.Egress != nil && e.Egress.Type == event.EgressDM
	if !direct && e.Channel != "" {
		id, ok := channelOf(e.Channel)
		if !ok {
			return recipient{}, fmt.Errorf("%q is not a Discord channel (discord:ID)", e.Channel)
		}
		return recipient{channel: id}, nil
	}
	user, err := identity.Parse(e.UserID)
	if err != nil {
		return recipient{}, err
	}
	if _, ok := parseSnowflake(user.ID()); !ok || user.Platform() != identity.Discord {
		return recipient{}, fmt.Errorf("%q is not a Discord user (discord:ID)", e.UserID)
	}
	return recipient{user: user.ID()}, nil
}

// address returns the transport of an answer. The key, one per channel and per user, orders the answers.
func (d *dispatcher) address(ref delivery.Ref, e *event.Event) (key string, _ outbox.Transport, err error) {
	to, err := recipientOf(e)
	t := &transport{dispatcher: d, ref: ref, recipient: to, mentions: mentionsOf(e)}
	id := outbox.ReplyTarget(e, identity.Discord)
	if _, ok := parseSnowflake(id); ok && to.channel != "" {
		t.parent = id
	}
	return to.channel + "/" + to.user, t, err
}

// conversation returns the id of the direct conversation with a user, and opens the conversation if necessary. Discord
// always returns the same conversation (https://discord.com/developers/docs/resources/user#create-dm).
func (d *dispatcher) conversation(ctx context.Context, user string) (string, error) {
	d.mu.Lock()
	id := d.conversations[user]
	d.mu.Unlock()
	if id != "" {
		return id, nil
	}
	const route = "POST users/@me/channels"
	if err := d.service.rest.waitForRoom(ctx, route); err != nil {
		return "", err
	}
	var opened struct {
		ID string `json:"id"`
	}
	body := map[string]string{"recipient_id": user}
	if err := d.service.rest.do(context.WithoutCancel(ctx), http.MethodPost, route, "users/@me/channels", body, &opened); err != nil {
		return "", err
	}
	if _, ok := parseSnowflake(opened.ID); !ok {
		return "", &failure{unknown: true, err: fmt.Errorf("%q is not the id of a conversation", opened.ID)}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.conversations) >= maxConversations {
		clear(d.conversations)
	}
	d.conversations[user] = opened.ID
	return opened.ID, nil
}
