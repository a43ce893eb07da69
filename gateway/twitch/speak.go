package twitch

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"parley.internal/shared/bus"
	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/egress"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/lease"
	"parley.internal/shared/moderation"
)

// maxQueue is how many answers of a channel are kept in memory. What is more stays in the ledger, and is found there.
const maxQueue = 1000

// speaker says the answers to one channel, one after the other, while this instance has the channel's lease.
//
// The ledger is what tells which answers there are; what comes by the bus only tells it sooner. An answer is opened in
// the ledger before it is published, and the speaker looks there after it got the lease, and then again and again. So
// one that was published while the channel had no owner, or that its last owner did not come to or gave back, is found
// by the next.
type speaker struct {
	service *Service
	lease   lease.Lease
	login   string
	log     interface {
		WarnContext(ctx context.Context, msg string, args ...any)
		InfoContext(ctx context.Context, msg string, args ...any)
	}

	mu     sync.Mutex
	queue  []*answer
	queued map[string]bool // by id, those in queue and the one that is being said
	full   bool            // some were not taken since the last look into the ledger
	woken  chan struct{}
}

// answer is one that is to be said.
type answer struct {
	ref   egress.Ref
	event *event.Event
	last  *deadletter.Error // what stood in the way so far; nil if nothing did
}

func newSpeaker(s *Service, l lease.Lease) *speaker {
	return &speaker{
		service: s, lease: l, login: l.Key(), log: s.log.With("channel", l.Key(), "lease", l.Token()),
		queued: map[string]bool{}, woken: make(chan struct{}, 1),
	}
}

// take puts an answer into the queue, where it is not yet.
func (sp *speaker) take(a *answer) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.queued[a.ref.ID] {
		return
	}
	if len(sp.queue) >= maxQueue {
		sp.full = true
		return
	}
	sp.queued[a.ref.ID] = true
	sp.queue = append(sp.queue, a)
	select {
	case sp.woken <- struct{}{}:
	default:
	}
}

// run speaks until ctx is done. What is being said then is brought to its end.
func (sp *speaker) run(ctx context.Context) {
	s := sp.service
	var next time.Time // when to look into the ledger
	for ctx.Err() == nil {
		sp.mu.Lock()
		var first *answer
		if len(sp.queue) > 0 {
			first = sp.queue[0]
		}
		look := time.Until(next) <= 0 || first == nil && sp.full
		sp.mu.Unlock()
		if look {
			wait := s.timing.scan
			if err := sp.look(ctx); err != nil {
				if ctx.Err() == nil {
					sp.log.WarnContext(ctx, "can't look for answers", "error", err)
				}
				// before the ledger has been asked, saying what comes by the bus could change the order
				if next.IsZero() {
					sleep(ctx, s.timing.minBackoff)
					continue
				}
				wait = s.timing.retry
			}
			next = time.Now().Add(wait)
			continue
		}
		if first == nil {
			select {
			case <-ctx.Done():
			case <-sp.woken:
			case <-time.After(time.Until(next)):
			}
			continue
		}
		done, wait := sp.say(ctx, first)
		if done {
			sp.mu.Lock()
			sp.queue = sp.queue[1:]
			delete(sp.queued, first.ref.ID)
			sp.mu.Unlock()
			continue
		}
		sleep(ctx, wait)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// look takes what the ledger has. At the first look it goes before what came by the bus meanwhile, which is later.
func (sp *speaker) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	sp.mu.Lock()
	sp.full = false
	sp.mu.Unlock()
	entries, err := sp.service.ledger.Pending(ctx, identity.Twitch, Channel(sp.login))
	if err != nil {
		return err
	}
	var found []*answer
	position := map[string]int{}
	for i, e := range entries {
		position[e.ID] = i + 1
		if e.Type != event.EgressChat {
			continue
		}
		decoded, err := event.Decode(e.Event)
		if err != nil {
			return fmt.Errorf("read the event of delivery %s: %w", e.ID, err)
		}
		found = append(found, &answer{ref: e.Ref(), event: decoded})
	}
	for _, a := range found {
		sp.take(a)
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	// what the ledger knows in the order of the ledger, the rest, which it got to know later, after that
	slices.SortStableFunc(sp.queue, func(a, b *answer) int {
		pa, pb := position[a.ref.ID], position[b.ref.ID]
		switch {
		case pa == 0 && pb == 0:
			return 0
		case pa == 0:
			return 1
		case pb == 0:
			return -1
		}
		return pa - pb
	})
	return nil
}

// say says one answer, and reports whether there is nothing left to do about it here; if there is, it is to be tried
// again after wait.
func (sp *speaker) say(ctx context.Context, a *answer) (done bool, wait time.Duration) {
	s := sp.service
	if !sp.lease.Valid() {
		return false, s.timing.minBackoff // until ctx ends
	}
	// Close to the deadline the sweep may give it up at any moment.
	if !a.ref.Deadline.IsZero() && s.now().After(a.ref.Deadline) {
		if a.last != nil {
			return sp.giveUp(ctx, a, a.last)
		}
		sp.count("overdue")
		return true, 0
	}
	texts := parts(egress.Text(a.event))
	if len(texts) == 0 {
		return sp.giveUp(ctx, a, deadletter.New(deadletter.NoText, errors.New("nothing is left of the text that can be said in a chat")))
	}
	way, err := sp.way(ctx)
	if err != nil {
		if ctx.Err() == nil {
			sp.obstacle(ctx, a, codeUnavailable, err)
		}
		return false, s.timing.retry
	}
	if err := sp.pace(ctx, way); err != nil {
		return false, 0
	}
	if ctx.Err() != nil || !sp.lease.Valid() {
		return false, s.timing.minBackoff
	}

	work := context.WithoutCancel(ctx) // what is claimed is brought to its end
	claiming, cancel := context.WithTimeout(work, 10*time.Second)
	claim, state, err := s.ledger.Claim(claiming, a.ref)
	claimed := s.now()
	cancel()
	switch {
	case errors.Is(err, egress.ErrNotFound):
		sp.log.WarnContext(ctx, "the ledger has no entry for an answer: not said", "delivery", a.ref.ID)
		sp.count("unknown_delivery")
		return true, 0
	case err != nil:
		sp.log.WarnContext(ctx, "can't claim an answer", "delivery", a.ref.ID, "error", err)
		return false, s.timing.retry
	case claim == nil:
		sp.count("had_" + string(state))
		return true, 0
	}
	return sp.sayClaimed(work, a, claim, claimed, way, texts)
}

// sayClaimed says what this instance alone may say.
//
// Several messages are one delivery. Once one of them stands in the chat, the answer can't be given back, for it would
// be said again from the start: a later message that Twitch refuses makes the delivery dead with that code, one that
// can't be said before the claim gets old makes it dead as twitch_incomplete, and one of which nobody knows leaves it
// outcome_unknown. The dead letter's error tells how many were said.
func (sp *speaker) sayClaimed(ctx context.Context, a *answer, claim *egress.Claim, claimed time.Time, way way, texts []string) (done bool, wait time.Duration) {
	s := sp.service
	fresh := func() bool {
		now := s.now()
		// the monotonic clock stands still while a machine sleeps, the other one may be set back
		return max(now.Sub(claimed), now.Round(0).Sub(claimed.Round(0))) < s.timing.claim
	}
	parent := repliesTo(a.event)
	var ids []string
	for i := 0; i < len(texts); {
		if i > 0 {
			if err := sp.pace(ctx, way); err != nil {
				return true, 0
			}
		}
		if !fresh() || i == 0 && !sp.lease.Valid() {
			if i == 0 {
				return sp.release(ctx, a, claim, outcome{code: codeUnavailable, err: errors.New("the lease or the claim ran out before it could be said")})
			}
			return sp.bury(ctx, claim, deadletter.New(codeIncomplete, fmt.Errorf("only %d of %d messages could be said in time", i, len(texts))))
		}
		o := sp.send(ctx, way, texts[i], parent, fmt.Sprintf("%s-%d-%d", a.ref.ID, a.ref.Attempt, i))
		switch o.kind {
		case said:
			ids = append(ids, o.id)
			i++
		case refused:
			err := o.err
			if len(texts) > 1 {
				err = fmt.Errorf("message %d of %d: %w", i+1, len(texts), o.err)
			}
			return sp.bury(ctx, claim, deadletter.New(deadletter.Reason(o.code), err))
		case unknown:
			sp.log.WarnContext(ctx, "it is not known whether an answer was said", "delivery", a.ref.ID, "message", i+1, "of", len(texts), "error", o.err)
			sp.count("unknown")
			return true, 0 // the claim runs out, and the sweep gives it up as outcome_unknown
		case notMade:
			if i == 0 {
				return sp.release(ctx, a, claim, o)
			}
			sleep(ctx, max(o.after, s.timing.minBackoff))
		}
	}
	sp.settle(ctx, claim.ID(), func(ctx context.Context) (egress.State, error) { return claim.Delivered(ctx, strings.Join(ids, " ")) }, "delivered")
	return true, 0
}

// settle records an outcome, and tries for as long as the claim holds.
func (sp *speaker) settle(ctx context.Context, id string, record func(context.Context) (egress.State, error), as string) {
	ctx, cancel := context.WithTimeout(ctx, sp.service.timing.claim/2)
	defer cancel()
	for {
		state, err := record(ctx)
		if err == nil {
			if as == "delivered" && state != egress.Delivered {
				sp.log.WarnContext(ctx, "said after it had been given up", "delivery", id, "state", state)
				as = "late"
			}
			sp.count(as)
			return
		}
		sp.log.WarnContext(ctx, "can't record what became of an answer", "delivery", id, "outcome", as, "error", err)
		if sleep(ctx, sp.service.timing.minBackoff); ctx.Err() != nil {
			sp.count("unrecorded")
			return
		}
	}
}

func (sp *speaker) bury(ctx context.Context, claim *egress.Claim, why *deadletter.Error) (done bool, wait time.Duration) {
	sp.settle(ctx, claim.ID(), func(ctx context.Context) (egress.State, error) {
		return sp.service.undertaker.GiveUpClaim(ctx, claim, why)
	}, "refused")
	return true, 0
}

// release gives an answer back that was certainly not said. It stays first in the queue.
func (sp *speaker) release(ctx context.Context, a *answer, claim *egress.Claim, o outcome) (done bool, wait time.Duration) {
	sp.settle(ctx, claim.ID(), func(ctx context.Context) (egress.State, error) { return egress.Pending, claim.Release(ctx) }, "released")
	sp.obstacle(ctx, a, o.code, o.err)
	return false, max(o.after, sp.service.timing.minBackoff)
}

// giveUp makes an answer dead that nobody has claimed.
func (sp *speaker) giveUp(ctx context.Context, a *answer, why *deadletter.Error) (done bool, wait time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := sp.service.undertaker.GiveUp(ctx, a.ref.ID, why); err != nil && !errors.Is(err, egress.ErrNotFound) {
		sp.log.WarnContext(ctx, "can't give up an answer", "delivery", a.ref.ID, "error", err)
		return false, sp.service.timing.retry
	}
	sp.count("given_up")
	return true, 0
}

// obstacle remembers what stands in the way, so that an answer that is not said before its deadline ends with the
// reason for that.
func (sp *speaker) obstacle(ctx context.Context, a *answer, code string, err error) {
	a.last = deadletter.New(deadletter.Reason(code), err)
	sp.log.WarnContext(ctx, "an answer has to wait", "delivery", a.ref.ID, "code", code, "error", err)
}

func (sp *speaker) count(outcome string) { sp.service.metrics.answers.WithLabelValues(outcome).Inc() }

// way is how something is said in the channel now.
type way struct {
	present
	token credential.Token
	helix bool
}

func (sp *speaker) way(ctx context.Context) (way, error) {
	s := sp.service
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
	w.present, err = s.chat.await(ctx, sp.login, !w.helix)
	return w, err
}

func (sp *speaker) pace(ctx context.Context, w way) error {
	l := sp.service.limits
	if w.privileged {
		return sp.service.says.wait(ctx, sp.login, l.saysAsMod, 0)
	}
	return sp.service.says.wait(ctx, sp.login, l.says, l.spacing)
}

func (sp *speaker) send(ctx context.Context, w way, text, parent, nonce string) outcome {
	s := sp.service
	if !w.helix {
		return s.chat.say(sp.login, text, parent, nonce)
	}
	h := helix{
		client: s.http, url: strings.TrimSuffix(s.app.APIURL, "/"), clientID: s.app.ClientID,
		bot: w.token, botID: s.bot.ID(), timeout: s.config.AnswerTimeout, now: s.now,
	}
	o := h.say(ctx, w.id, text, parent)
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
	o = h.say(ctx, w.id, text, parent)
	if o.kind == notMade && o.code == codeUnauthorized {
		o.after = s.timing.retry
	}
	return o
}

// messageID is the form of Twitch's ids of messages. Another platform's would be refused, or worse, end a tag.
var messageID = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

// repliesTo is the message that an answer is shown under: the one that asked. An answer that a program made by itself
// may name one.
func repliesTo(e *event.Event) string {
	id := e.ReplyTo
	if e.Message != nil && e.Message.Role == event.RoleUser && identity.PlatformOf(e.Source) == identity.Twitch && e.Message.ID != "" {
		id = e.Message.ID // replyTo is then what the user's own message answered
	}
	if !messageID.MatchString(id) {
		return ""
	}
	return id
}

// Deliver takes an answer, or a moderator's order, from the egress topic, if it is for a channel of which this instance has the lease. It
// returns before it is said or done, and nothing is lost by that: see [Service].
func (s *Service) Deliver(ctx context.Context, in bus.Incoming) error {
	ref, err := egress.Receive(in)
	if err != nil {
		return err
	}
	e := in.Event
	name, ok := loginOf(e.Channel)
	if !ok {
		return nil // nobody's; the sweep gives it up
	}
	if isOrder(e) {
		s.mu.Lock()
		m := s.moderators[name]
		s.mu.Unlock()
		if m != nil && m.lease.Valid() {
			m.take(&moderation.Job{Ref: ref, Event: e})
		}
		return nil
	}
	if e.Egress != nil && e.Egress.Type != "" && e.Egress.Type != event.EgressChat {
		return nil // another part's
	}
	s.mu.Lock()
	sp := s.speakers[name]
	s.mu.Unlock()
	if sp == nil || !sp.lease.Valid() {
		return nil // another instance's, or the next owner's
	}
	sp.take(&answer{ref: ref, event: e})
	return nil
}
