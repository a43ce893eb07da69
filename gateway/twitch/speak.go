package twitch

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
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
)

// speaker says the answers to one channel, one after the other, while this instance has the channel's lease.
type speaker struct {
	*outbox.Dispatcher
	service *Service
	lease   lease.Lease
	login   string
}

func newSpeaker(s *Service, l lease.Lease) *speaker {
	sp := &speaker{service: s, lease: l, login: l.Key()}
	sp.Dispatcher = outbox.NewDispatcher(outbox.Platform{Pending: sp.owed, Address: sp.address, Split: parts}, outbox.Options{
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
func (sp *speaker) run(ctx context.Context) { sp.Run(ctx, context.WithoutCancel(ctx)) }

func (sp *speaker) owed(ctx context.Context) ([]delivery.Entry, error) {
	entries, err := sp.service.ledger.Pending(ctx, identity.Twitch, Channel(sp.login))
	return slices.DeleteFunc(entries, func(e delivery.Entry) bool { return e.Type != event.EgressChat }), err
}

// messageID is the form of Twitch's ids of messages. Another platform's would be refused, or worse, end a tag.
var messageID = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

// address gives the voice of an answer. All wait in the one line of the channel.
func (sp *speaker) address(ref delivery.Ref, e *event.Event) (line string, _ outbox.Transport, err error) {
	own := &voice{speaker: sp, nonce: fmt.Sprintf("%s-%d", ref.ID, ref.RedriveCount)}
	if id := outbox.ReplyTarget(e, identity.Twitch); messageID.MatchString(id) {
		own.parent = id
	}
	return "", own, nil
}

// voice says one answer.
type voice struct {
	*speaker
	parent string // what it replies to; empty if nothing
	nonce  string // of all its messages, which have their number behind it
	way    way
}

// Ready implements [outbox.Transport]. All messages of an answer are said in the same way.
func (v *voice) Ready(ctx context.Context, part int) (o delivery.Outcome, ready bool) {
	if part == 0 {
		var err error
		if v.way, err = v.findWay(ctx); err != nil {
			return delivery.Outcome{Reason: codeUnavailable, Err: err, After: v.service.timing.retry}, false
		}
	}
	l := v.service.limits
	limit, spacing := l.says, l.spacing
	if v.way.privileged {
		limit, spacing = l.saysAsMod, 0
	}
	return o, v.service.says.wait(ctx, v.login, limit, spacing) == nil
}

// Send implements [outbox.Transport].
func (v *voice) Send(ctx context.Context, part int, text string) delivery.Outcome {
	v.service.says.begin(v.login) // the answer had to be claimed meanwhile
	o := v.send(ctx, text, fmt.Sprintf("%s-%d", v.nonce, part))
	return delivery.Outcome{Kind: o.kind, Note: o.id, Reason: deadletter.Reason(o.code), Err: o.err, After: o.after}
}

// way is how something is said in the channel now.
type way struct {
	present
	token credential.Token
	helix bool
}

func (v *voice) findWay(ctx context.Context) (way, error) {
	s := v.service
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	token, err := s.tokens.Token(ctx, s.bot)
	if err != nil {
		return way{}, err
	}
	w := way{token: token, helix: s.config.Speak == SpeakHelix || s.config.Speak == SpeakAuto && slices.Contains(token.Scopes, scopeWrite)}
	if s.config.Speak == SpeakHelix {
		if err := token.Require(scopeWrite); err != nil {
			return way{}, err
		}
	}
	w.present, err = s.chat.await(ctx, v.login, !w.helix)
	return w, err
}

func (v *voice) send(ctx context.Context, text, nonce string) outcome {
	s, w := v.service, v.way
	if !w.helix {
		return s.chat.say(v.login, text, v.parent, nonce)
	}
	h := helix{
		client: s.http, url: strings.TrimSuffix(s.app.APIURL, "/"), clientID: s.app.ClientID,
		bot: w.token, botID: s.bot.ID(), timeout: s.config.AnswerTimeout, now: s.now,
	}
	o := h.say(ctx, w.id, text, v.parent)
	if o.kind != notMade || o.code != codeUnauthorized {
		return o
	}
	refreshing, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	token, err := s.tokens.Invalid(refreshing, s.bot, w.token)
	if err != nil {
		o.err, o.after = errors.Join(o.err, err), s.timing.retry
		return o
	}
	h.bot = token
	o = h.say(ctx, w.id, text, v.parent)
	if o.kind == notMade && o.code == codeUnauthorized {
		o.after = s.timing.retry
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
	sp, m := s.speakers[name], s.moderators[name]
	s.mu.Unlock()
	switch {
	case sp == nil || !sp.lease.Valid(): // another instance's, or the next owner's
	case moderation.IsCommand(e):
		m.Enqueue(&moderator.Job{Job: delivery.Job{Ref: ref}, Event: e})
	case e.Egress == nil || e.Egress.Type == "" || e.Egress.Type == event.EgressChat: // else another part's
		sp.Enqueue(ref, e)
	}
	return nil
}
