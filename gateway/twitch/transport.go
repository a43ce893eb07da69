package twitch

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"

	"parley.internal/gateway/moderator"
	"parley.internal/gateway/outbox"
	"parley.internal/shared/bus"
	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/lease"
	"parley.internal/shared/moderation"
	helix "parley.internal/shared/twitch"
)

const (
	// tokenTime bounds obtaining a token.
	tokenTime = 10 * time.Second
	// rateLimitPause is the pause after a 429 without a Ratelimit-Reset header.
	rateLimitPause = time.Second
)

// account obtains the bot's tokens.
func (s *Service) account(scopes ...string) helix.Account {
	return helix.Account{User: s.bot, Tokens: s.tokens, Scopes: scopes, Timeout: tokenTime}
}

// dispatcher sends the answers to one channel in order, while this instance has the channel's lease.
type dispatcher struct {
	*outbox.Dispatcher
	service *Service
	lease   lease.Lease
	login   string
}

func newDispatcher(s *Service, l lease.Lease) *dispatcher {
	d := &dispatcher{service: s, lease: l, login: l.Key()}
	d.Dispatcher = outbox.NewDispatcher(outbox.Platform{Pending: d.pending, Address: d.address, Split: messages}, outbox.Options{
		Ledger: s.ledger, Reaper: s.reaper, HoldsLease: l.Valid, Log: s.log.With("channel", l.Key(), "lease", l.Token()), Now: s.now,
		Count:  func(outcome string) { s.metrics.answers.WithLabelValues(outcome).Inc() },
		Timing: s.timing.outbox(),
	})
	return d
}

// run sends answers until ctx is done. The end of ctx does not interrupt an answer: run sends all its messages first.
func (d *dispatcher) run(ctx context.Context) { d.Run(ctx, context.WithoutCancel(ctx)) }

func (d *dispatcher) pending(ctx context.Context) ([]delivery.Entry, error) {
	entries, err := d.service.ledger.Pending(ctx, identity.Twitch, channelName(d.login))
	return slices.DeleteFunc(entries, func(e delivery.Entry) bool { return e.Type != event.EgressChat }), err
}

// messageID is the form of Twitch's message ids. Twitch would refuse another platform's id, or the id would end a tag.
var messageID = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

// address returns an answer's transport. All answers of the channel have the same key, and so keep their order.
func (d *dispatcher) address(ref delivery.Ref, e *event.Event) (key string, _ outbox.Transport, err error) {
	t := &transport{dispatcher: d, nonce: fmt.Sprintf("%s-%d", ref.ID, ref.RedriveCount)}
	if id := outbox.ReplyTarget(e, identity.Twitch); messageID.MatchString(id) {
		t.parent = id
	}
	return "", t, nil
}

// transport sends one answer.
type transport struct {
	*dispatcher
	parent string // id of the message that the answer replies to; empty for none
	nonce  string // prefix of the messages' nonces
	route  route
}

// Ready implements [outbox.Transport]. All messages of an answer take the same route.
func (t *transport) Ready(ctx context.Context, part int) (o delivery.Outcome, ready bool) {
	if part == 0 {
		var failed *helix.Error
		if t.route, failed = t.findRoute(ctx); failed != nil {
			o := t.service.timing.outcomeOf("", failed)
			o.After = t.service.timing.retry
			return o, false
		}
	}
	l := t.service.limits
	limit, spacing := l.messages, l.spacing
	if t.route.privileged {
		limit, spacing = l.moderatorMessages, 0
	}
	return o, t.service.sends.wait(ctx, t.login, limit, spacing) == nil
}

// Send implements [outbox.Transport].
func (t *transport) Send(ctx context.Context, part int, text string) delivery.Outcome {
	t.service.sends.begin(t.login) // the claim took time after Ready
	return t.send(ctx, text, fmt.Sprintf("%s-%d", t.nonce, part))
}

// route is the present way to the channel.
type route struct {
	target
	token credential.Token
	helix bool // else IRC
}

func (t *transport) findRoute(ctx context.Context) (route, *helix.Error) {
	s := t.service
	ctx, cancel := context.WithTimeout(ctx, tokenTime)
	defer cancel()
	account := s.account()
	if s.config.Transport == transportHelix {
		account = s.account(helix.ScopeChat)
	}
	token, failed := account.Token(ctx)
	if failed != nil {
		return route{}, failed
	}
	r := route{token: token, helix: s.config.Transport == transportHelix || s.config.Transport == transportAuto && slices.Contains(token.Scopes, helix.ScopeChat)}
	var err error
	if r.target, err = s.chat.await(ctx, t.login, !r.helix); err != nil {
		return route{}, &helix.Error{Outcome: helix.NotDone, Reason: deadletter.PlatformUnavailable, Err: err}
	}
	return r, nil
}

func (t *transport) send(ctx context.Context, text, nonce string) delivery.Outcome {
	s, r := t.service, t.route
	if !r.helix {
		return s.chat.send(t.login, text, t.parent, nonce)
	}
	var id string
	failed := s.account(helix.ScopeChat).Do(ctx, r.token, func(token credential.Token) (failed *helix.Error) {
		ctx, cancel := context.WithTimeout(ctx, s.config.ReplyTimeout)
		defer cancel()
		id, failed = s.api.SendChat(ctx, token, helix.ChatMessage{BroadcasterID: r.id, SenderID: s.bot.ID(), Text: text, ReplyParent: t.parent})
		return failed
	})
	return s.timing.outcomeOf(id, failed)
}

// outcomeOf converts the result of sending a message. A message without a valid token waits, because a login before the
// answer's deadline helps. A refusal that ends by itself waits, too, and no longer than timing.pass.
func (t timing) outcomeOf(id string, failed *helix.Error) delivery.Outcome {
	if failed == nil {
		return delivery.Outcome{Kind: delivery.Sent, Note: id}
	}
	o := delivery.Outcome{Kind: delivery.Unknown, Reason: failed.Reason, Err: failed.Err, After: failed.After}
	switch failed.Outcome {
	case helix.Refused:
		o.Kind = delivery.Refused
	case helix.NotDone:
		o.Kind = delivery.NotSent
		if failed.Reason == deadletter.RateLimited {
			o.After = cmp.Or(o.After, rateLimitPause)
		}
		if failed.Passes {
			o.After = min(o.After, t.pass)
		}
	case helix.Unauthorized:
		o.Kind, o.After = delivery.NotSent, t.retry
	}
	return o
}

// Deliver queues an answer or a moderation command from the egress topic, if this instance has the lease of its channel.
// It returns before the execution. A crash loses nothing: see [Service].
func (s *Service) Deliver(ctx context.Context, in bus.Incoming) error {
	ref, err := delivery.ParseRef(in)
	if err != nil {
		return err
	}
	e := in.Event
	login, ok := loginOf(e.Channel)
	if !ok {
		return nil // of another platform, or without a valid channel; the sweep marks the latter dead
	}
	s.mu.Lock()
	d, m := s.dispatchers[login], s.enforcers[login]
	s.mu.Unlock()
	switch {
	case d == nil || !d.lease.Valid(): // another instance's, or the next owner's
	case moderation.IsCommand(e):
		m.Enqueue(&moderator.Job{Job: delivery.Job{Ref: ref}, Event: e})
	case e.Egress == nil || e.Egress.Type == "" || e.Egress.Type == event.EgressChat: // whispers have a function of their own
		d.Enqueue(ref, e)
	}
	return nil
}
