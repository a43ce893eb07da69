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

// dispatcher says the answers to one channel, one after the other, while this instance has the channel's lease.
type dispatcher struct {
	*outbox.Dispatcher
	service *Service
	lease   lease.Lease
	login   string
}

func newDispatcher(s *Service, l lease.Lease) *dispatcher {
	sp := &dispatcher{service: s, lease: l, login: l.Key()}
	sp.Dispatcher = outbox.NewDispatcher(outbox.Platform{Pending: sp.pending, Address: sp.address, Split: split}, outbox.Options{
		Ledger: s.ledger, Reaper: s.reaper, HoldsLease: l.Valid, Log: s.log.With("channel", l.Key(), "lease", l.Token()), Now: s.now,
		Count:  func(outcome string) { s.metrics.answers.WithLabelValues(outcome).Inc() },
		Timing: s.timing.outbox(),
	})
	return sp
}

// outbox is the part of it that answers and orders have to do with.
func (t timing) outbox() outbox.Timing {
	return outbox.Timing{Scan: t.scan, Retry: t.retry, Backoff: t.minBackoff, MaxBackoff: t.maxBackoff, Claim: t.claim}
}

// run speaks until ctx is done. What is being said then is brought to its end.
func (sp *dispatcher) run(ctx context.Context) { sp.Run(ctx, context.WithoutCancel(ctx)) }

func (sp *dispatcher) pending(ctx context.Context) ([]delivery.Entry, error) {
	entries, err := sp.service.ledger.Pending(ctx, identity.Twitch, Channel(sp.login))
	return slices.DeleteFunc(entries, func(e delivery.Entry) bool { return e.Type != event.EgressChat }), err
}

// messageID is the form of Twitch's ids of messages. Another platform's would be refused, or worse, end a tag.
var messageID = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

// address gives the voice of an answer. All wait in the one line of the channel.
func (sp *dispatcher) address(ref delivery.Ref, e *event.Event) (line string, _ outbox.Transport, err error) {
	own := &transport{dispatcher: sp, nonce: fmt.Sprintf("%s-%d", ref.ID, ref.RedriveCount)}
	if id := outbox.ReplyTarget(e, identity.Twitch); messageID.MatchString(id) {
		own.parent = id
	}
	return "", own, nil
}

// transport says one answer.
type transport struct {
	*dispatcher
	parent string // what it replies to; empty if nothing
	nonce  string // of all its messages, which have their number behind it
	route  route
}

// Ready implements [outbox.Transport]. All messages of an answer are said in the same way.
func (v *transport) Ready(ctx context.Context, part int) (o outbox.Outcome, ready bool) {
	if part == 0 {
		var err *helix.Error
		if v.route, err = v.findRoute(ctx); err != nil {
			o := outcomeOf("", err, 0)
			o.After = v.service.timing.retry
			return o, false
		}
	}
	l := v.service.limits
	limit, spacing := l.messages, l.spacing
	if v.route.privileged {
		limit, spacing = l.moderatorMessages, 0
	}
	return o, v.service.sends.wait(ctx, v.login, limit, spacing) == nil
}

// Send implements [outbox.Transport].
func (v *transport) Send(ctx context.Context, part int, text string) outbox.Outcome {
	v.service.sends.begin(v.login) // the answer had to be claimed meanwhile
	return v.send(ctx, text, fmt.Sprintf("%s-%d", v.nonce, part))
}

// route is how something is said in the channel now.
type route struct {
	target
	token credential.Token
	helix bool
}

func (v *transport) findRoute(ctx context.Context) (route, *helix.Error) {
	s := v.service
	ctx, cancel := context.WithTimeout(ctx, tokenTime)
	defer cancel()
	account := s.account()
	if s.config.Transport == TransportHelix {
		account = s.account(helix.ScopeChat)
	}
	token, failed := account.Token(ctx)
	if failed != nil {
		return route{}, failed
	}
	w := route{token: token, helix: s.config.Transport == TransportHelix || s.config.Transport == TransportAuto && slices.Contains(token.Scopes, helix.ScopeChat)}
	var err error
	if w.target, err = s.chat.await(ctx, v.login, !w.helix); err != nil {
		return route{}, &helix.Error{Outcome: helix.NotDone, Reason: deadletter.PlatformUnavailable, Err: err}
	}
	return w, nil
}

func (v *transport) send(ctx context.Context, text, nonce string) outbox.Outcome {
	s, w := v.service, v.route
	if !w.helix {
		return s.chat.send(v.login, text, v.parent, nonce)
	}
	var id string
	failed := s.account(helix.ScopeChat).Do(ctx, w.token, func(token credential.Token) (failed *helix.Error) {
		ctx, cancel := context.WithTimeout(ctx, s.config.ReplyTimeout)
		defer cancel()
		id, failed = s.api.SendChat(ctx, token, helix.ChatMessage{BroadcasterID: w.id, SenderID: s.bot.ID(), Text: text, ReplyParent: v.parent})
		return failed
	})
	return outcomeOf(id, failed, s.timing.retry)
}

// outcomeOf converts the result of sending a message. A message without a valid token waits, because a login before the
// answer's deadline helps; retry is the pause until then.
func outcomeOf(id string, failed *helix.Error, retry time.Duration) outbox.Outcome {
	if failed == nil {
		return outbox.Outcome{Kind: outbox.Sent, ID: id}
	}
	o := outbox.Outcome{Kind: outbox.Unknown, Reason: failed.Reason, Err: failed.Err, After: failed.After}
	switch failed.Outcome {
	case helix.Refused:
		o.Kind = outbox.Refused
	case helix.NotDone:
		o.Kind = outbox.NotSent
		if failed.Reason == deadletter.RateLimited {
			o.After = cmp.Or(o.After, rateLimitPause)
		}
	case helix.Unauthorized:
		o.Kind, o.After = outbox.NotSent, retry
	}
	return o
}

// Deliver takes an answer, or a moderator's order, from the egress topic, if it is for a channel of which this instance
// has the lease. It returns before it is said or done, and nothing is lost by that: see [Service].
func (s *Service) Deliver(ctx context.Context, in bus.Incoming) error {
	ref, err := delivery.ParseRef(in)
	if err != nil {
		return err
	}
	e := in.Event
	name, ok := loginOf(e.Channel)
	if !ok {
		return nil // nobody's; the sweep gives it up
	}
	s.mu.Lock()
	sp, m := s.dispatchers[name], s.enforcers[name]
	s.mu.Unlock()
	switch {
	case sp == nil || !sp.lease.Valid(): // another instance's, or the next owner's
	case moderation.IsCommand(e):
		m.Enqueue(&moderator.Job{Ref: ref, Event: e})
	case e.Egress == nil || e.Egress.Type == "" || e.Egress.Type == event.EgressChat: // else another part's
		sp.Enqueue(ref, e)
	}
	return nil
}
