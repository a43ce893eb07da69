package discord

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bwmarrin/discordgo"

	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/egress"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/lease"
	"parley.internal/shared/moderation"
)

const (
	// maxQueue is how many answers for one recipient are kept in memory. What is more stays in the ledger, and is found
	// there.
	maxQueue = 1000
	// speaking is how many answers are said at a time.
	speaking = 16
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
//
// The ledger is what tells which answers there are; what comes by the bus only tells it sooner. An answer is opened in
// the ledger before it is published, and the speaker looks there after it got the lease, and then again and again.
type speaker struct {
	service *Service
	lease   lease.Lease
	gateway *gateway
	orders  *moderator      // gets what the ledger has for it
	ctx     context.Context // of run; set before anything is said
	stopped context.Context // what is being said then is left as it is
	slots   chan struct{}
	wg      sync.WaitGroup
	look    chan struct{} // room has come up for what was left in the ledger

	mu            sync.Mutex
	recipients    map[recipient]*line
	begun, ended  bool
	full          bool // some were not taken since the last look into the ledger
	conversations map[string]string
}

// recipient is where an answer goes: a channel, or a person.
type recipient struct {
	channel string // Discord's id
	user    string // Discord's id, if channel is empty
}

// line is the answers for one recipient.
type line struct {
	to     recipient
	queue  []*answer
	queued map[string]bool // by id
	busy   bool
}

// answer is one that is to be said.
type answer struct {
	ref   egress.Ref
	event *event.Event
	begun bool              // somebody may have said it, or a part of it, already
	last  *deadletter.Error // what stood in the way so far; nil if nothing did
}

func newSpeaker(s *Service, l lease.Lease, g *gateway, m *moderator) *speaker {
	return &speaker{
		service: s, lease: l, gateway: g, orders: m, slots: make(chan struct{}, speaking), look: make(chan struct{}, 1),
		recipients: map[recipient]*line{}, conversations: map[string]string{},
	}
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

// take puts answers into their recipients' lines, where they are not yet. Those that are given in the order of the
// ledger go before what is not among them, which is later.
func (sp *speaker) take(ordered bool, answers ...*answer) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.ended {
		return
	}
	position := map[string]int{}
	touched := map[*line]bool{}
	for i, a := range answers {
		position[a.ref.ID] = i + 1
		to, err := recipientOf(a.event)
		if err != nil {
			to = recipient{} // it is given up in the line of those that go nowhere
		}
		l := sp.recipients[to]
		if l == nil {
			l = &line{to: to, queued: map[string]bool{}}
			sp.recipients[to] = l
		}
		touched[l] = true
		if l.queued[a.ref.ID] {
			continue
		}
		if len(l.queue) >= maxQueue {
			sp.full = true
			continue
		}
		l.queued[a.ref.ID] = true
		l.queue = append(l.queue, a)
	}
	for l := range touched {
		if ordered {
			slices.SortStableFunc(l.queue, func(a, b *answer) int {
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
		}
		sp.work(l)
	}
}

// work has a line worked on. sp.mu is held.
func (sp *speaker) work(l *line) {
	// before the ledger has been asked, saying what comes by the bus could change the order
	if l.busy || !sp.begun || sp.ended || len(l.queue) == 0 {
		return
	}
	l.busy = true
	sp.wg.Go(func() { sp.serve(l) }) // ends when the line is empty, or with ctx
}

// run speaks until ctx is done. What is being said then is brought to its end, until stopped.
func (sp *speaker) run(ctx, stopped context.Context) {
	s := sp.service
	sp.ctx, sp.stopped = ctx, stopped
	for ctx.Err() == nil {
		wait := s.timing.scan
		if err := sp.scan(ctx); err != nil {
			if ctx.Err() == nil {
				s.log.WarnContext(ctx, "can't look for answers", "error", err)
			}
			wait = s.timing.retry
		}
		select {
		case <-ctx.Done():
		case <-sp.look:
		case <-time.After(wait):
		}
	}
	sp.mu.Lock()
	sp.ended = true
	sp.mu.Unlock()
	sp.wg.Wait()
}

// scan takes what the ledger has.
func (sp *speaker) scan(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	sp.mu.Lock()
	sp.full = false
	sp.mu.Unlock()
	entries, err := sp.service.ledger.UnsettledOn(ctx, identity.Discord)
	if err != nil {
		return err
	}
	var found []*answer
	for _, e := range entries {
		begun := e.State == egress.Claimed
		order := e.Type == event.EgressEvent
		switch now := sp.service.now(); {
		case order && begun && now.Before(e.LeaseUntil): // it is being carried out, or its claim has to run out
			continue
		case !order && begun && now.Sub(e.OpenedAt) > takeover:
			continue
		}
		decoded, err := event.Decode(e.Event)
		if err != nil {
			sp.service.log.ErrorContext(ctx, "the event of a delivery can't be read", "delivery", e.ID, "error", err)
			continue
		}
		switch {
		case !order:
			found = append(found, &answer{ref: e.Ref(), event: decoded, begun: begun})
		case isOrder(decoded):
			sp.orders.take(&moderation.Job{Ref: e.Ref(), Event: decoded, Begun: begun})
		}
	}
	sp.take(true, found...)
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if !sp.begun {
		sp.begun = true
		for _, l := range sp.recipients {
			sp.work(l)
		}
	}
	return nil
}

// serve says a line's answers one after the other until there is none.
func (sp *speaker) serve(l *line) {
	for {
		sp.mu.Lock()
		if len(l.queue) == 0 || sp.ctx.Err() != nil {
			l.busy = false
			if len(l.queue) == 0 {
				delete(sp.recipients, l.to)
				if sp.full {
					select {
					case sp.look <- struct{}{}:
					default:
					}
				}
			}
			sp.mu.Unlock()
			return
		}
		first := l.queue[0]
		sp.mu.Unlock()
		done, wait := sp.say(sp.ctx, first)
		if !done {
			sleep(sp.ctx, wait)
			continue
		}
		sp.mu.Lock()
		l.queue = slices.DeleteFunc(l.queue, func(a *answer) bool { return a == first }) // it may stand elsewhere by now
		delete(l.queued, first.ref.ID)
		sp.mu.Unlock()
	}
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
		sp.count("overdue") // nobody was connected: the sweep gives it up as that
		return true, 0
	}
	to, err := recipientOf(a.event)
	if err != nil {
		return sp.giveUp(ctx, a, deadletter.New(deadletter.NoRecipient, err))
	}
	texts := parts(egress.Text(a.event))
	if len(texts) == 0 {
		return sp.giveUp(ctx, a, deadletter.New(deadletter.NoText, errors.New("nothing is left of the text that can be said in a chat")))
	}
	if !sp.gateway.up.Load() {
		return false, s.timing.minBackoff
	}
	channel := to.channel
	if channel == "" {
		if channel, err = sp.conversation(ctx, to.user); err != nil {
			return sp.hindered(ctx, a, err)
		}
	}
	if err := s.rest.room(ctx, route(channel)); err != nil {
		return false, 0
	}
	select {
	case sp.slots <- struct{}{}:
		defer func() { <-sp.slots }()
	case <-ctx.Done():
		return false, 0
	}
	if ctx.Err() != nil || !sp.lease.Valid() {
		return false, s.timing.minBackoff
	}

	claiming, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second) // what is claimed is brought to its end
	take := s.ledger.Claim
	if a.begun {
		take = s.ledger.TakeOver // the session's owner alone says anything, and here is the only line that has it
	}
	claim, state, err := take(claiming, a.ref)
	claimed := s.now()
	cancel()
	switch {
	case errors.Is(err, egress.ErrNotFound):
		s.log.WarnContext(ctx, "the ledger has no entry for an answer: not said", "delivery", a.ref.ID)
		sp.count("unknown_delivery")
		return true, 0
	case err != nil:
		s.log.WarnContext(ctx, "can't claim an answer", "delivery", a.ref.ID, "error", err)
		return false, s.timing.retry
	case claim == nil:
		sp.count("had_" + string(state))
		return true, 0
	}
	return sp.sayClaimed(sp.stopped, a, claim, claimed, channel, to, texts)
}

// sayClaimed says what this instance alone may say.
//
// Several messages are one delivery. Once one of them stands in the channel, the answer can't be given back, for it
// would be said again from the start: a later message that Discord refuses makes the delivery dead for that reason, and
// one that can't be said before the claim gets old makes it dead as incomplete. What Discord did not say that it took is
// sent again for as long as the claim holds, which is less than the minutes for which Discord knows a nonce.
func (sp *speaker) sayClaimed(ctx context.Context, a *answer, claim *egress.Claim, claimed time.Time, channel string, to recipient, texts []string) (done bool, wait time.Duration) {
	s := sp.service
	fresh := func() bool {
		now := s.now()
		// the monotonic clock stands still while a machine sleeps, the other one may be set back
		return ctx.Err() == nil && max(now.Sub(claimed), now.Round(0).Sub(claimed.Round(0))) < s.timing.claim
	}
	parent := ""
	if to.channel != "" {
		parent = repliesTo(a.event)
	}
	var ids []string
	doubt := a.begun // whether the message that is being said may stand there already
	backoff := s.timing.minBackoff
	for i := 0; i < len(texts); {
		if !fresh() || !sp.lease.Valid() {
			switch {
			case doubt:
				s.log.WarnContext(ctx, "it is not known whether an answer was said", "delivery", a.ref.ID, "message", i+1, "of", len(texts))
				sp.count("unknown")
				return true, 0 // it is taken over, or the claim runs out, and the sweep gives it up as outcome_unknown
			case i == 0:
				return sp.release(ctx, a, claim, &failure{err: errors.New("the lease or the claim ran out before it could be said")})
			}
			return sp.bury(ctx, claim, deadletter.New(deadletter.Incomplete, fmt.Errorf("only %d of %d messages could be said in time", i, len(texts))))
		}
		out := outgoing{Content: texts[i], Nonce: nonce(a.ref, i), EnforceNonce: true, Mentions: noMentions}
		if i == 0 && parent != "" {
			out.Reference = &reference{parent, channel, false}
		}
		var said struct {
			ID string `json:"id"`
		}
		err := s.rest.do(context.WithoutCancel(ctx), http.MethodPost, route(channel), "channels/"+channel+"/messages", out, &said)
		f, failed := errors.AsType[*failure](err)
		switch {
		case !failed:
			ids = append(ids, said.ID)
			i++
			doubt, backoff = a.begun, s.timing.minBackoff
		case f.unknown:
			doubt = true
			s.metrics.resent.Inc()
			s.log.WarnContext(ctx, "Discord did not say whether it took a message: sending it again", "delivery", a.ref.ID, "error", f)
			sleep(ctx, backoff)
			backoff = min(2*backoff, s.timing.maxBackoff)
		case decided(f) && i == 0 && parent != "" && (f.code == discordgo.ErrCodeInvalidFormBody || f.code == discordgo.ErrCodeCannotReplyWithoutPermissionToReadMessageHistory || f.code == discordgo.ErrCodeUnknownMessage):
			parent = "" // what is answered may be in another channel, or may not be read: answer without pointing at it
		case decided(f) && !doubt:
			why := reason(f)
			if len(texts) > 1 {
				why.Err = fmt.Errorf("message %d of %d: %w", i+1, len(texts), why.Err)
			}
			return sp.bury(ctx, claim, why)
		case i == 0 && !doubt:
			return sp.release(ctx, a, claim, f)
		default:
			if f.status == http.StatusUnauthorized {
				sp.gateway.renew(f)
			}
			sleep(ctx, max(f.after, s.timing.minBackoff))
		}
	}
	sp.settle(ctx, claim.ID(), func(ctx context.Context) (egress.State, error) { return claim.Delivered(ctx, strings.Join(ids, " ")) }, "delivered")
	return true, 0
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
func nonce(ref egress.Ref, part int) string {
	return deadletter.ID("nonce", ref.ID, strconv.Itoa(ref.Attempt), strconv.Itoa(part))[:24]
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

// hindered is what comes of an answer that nobody has claimed, when what it needs first did not work.
func (sp *speaker) hindered(ctx context.Context, a *answer, err error) (done bool, wait time.Duration) {
	f, ok := errors.AsType[*failure](err)
	switch {
	case !ok:
		return false, 0
	case decided(f):
		return sp.giveUp(ctx, a, reason(f))
	}
	sp.obstacle(ctx, a, f)
	return false, max(f.after, sp.service.timing.minBackoff)
}

// settle records an outcome, and tries for as long as the claim holds.
func (sp *speaker) settle(ctx context.Context, id string, record func(context.Context) (egress.State, error), as string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sp.service.timing.claim/2)
	defer cancel()
	for {
		state, err := record(ctx)
		if err == nil {
			if as == "delivered" && state != egress.Delivered {
				sp.service.log.WarnContext(ctx, "said after it had been given up", "delivery", id, "state", state)
				as = "late"
			}
			sp.count(as)
			return
		}
		sp.service.log.WarnContext(ctx, "can't record what became of an answer", "delivery", id, "outcome", as, "error", err)
		if sleep(ctx, sp.service.timing.minBackoff); ctx.Err() != nil || sp.stopped.Err() != nil {
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

// release gives an answer back that was certainly not said. It stays first in its line.
func (sp *speaker) release(ctx context.Context, a *answer, claim *egress.Claim, f *failure) (done bool, wait time.Duration) {
	sp.settle(ctx, claim.ID(), func(ctx context.Context) (egress.State, error) { return egress.Pending, claim.Release(ctx) }, "released")
	sp.obstacle(ctx, a, f)
	return false, max(f.after, sp.service.timing.minBackoff)
}

// giveUp makes an answer dead that nobody has claimed.
func (sp *speaker) giveUp(ctx context.Context, a *answer, why *deadletter.Error) (done bool, wait time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := sp.service.undertaker.GiveUp(ctx, a.ref.ID, why); err != nil && !errors.Is(err, egress.ErrNotFound) {
		sp.service.log.WarnContext(ctx, "can't give up an answer", "delivery", a.ref.ID, "error", err)
		return false, sp.service.timing.retry
	}
	sp.count("given_up")
	return true, 0
}

// obstacle remembers what stands in the way, so that an answer that is not said before its deadline ends with the
// reason for that. A token that is refused is the same as no connection, which is looked at again.
func (sp *speaker) obstacle(ctx context.Context, a *answer, f *failure) {
	switch {
	case f.status == http.StatusUnauthorized:
		a.last = nil
		sp.gateway.renew(fmt.Errorf("DISCORD_BOT_TOKEN is refused: %w", f.err))
	case f.limited:
		a.last = deadletter.New(deadletter.RateLimited, f.err)
	default:
		a.last = deadletter.New(deadletter.PlatformUnavailable, f.err)
	}
	sp.service.log.WarnContext(ctx, "an answer has to wait", "delivery", a.ref.ID, "error", f.err)
}

func (sp *speaker) count(outcome string) { sp.service.metrics.answers.WithLabelValues(outcome).Inc() }

// repliesTo is the message that an answer is shown under: the one that asked. An answer that a program made by itself
// may name one.
func repliesTo(e *event.Event) string {
	id := e.ReplyTo
	if e.Message != nil && e.Message.Role == event.RoleUser && identity.PlatformOf(e.Source) == identity.Discord && e.Message.ID != "" {
		id = e.Message.ID // replyTo is then what the user's own message answered
	}
	if _, ok := parseSnowflake(id); !ok {
		return ""
	}
	return id
}

// Deliver takes an answer or a moderator's order from the egress topic, if this instance has the bot's session. It
// returns before the answer is said, and nothing is lost by that: see [Service].
func (s *Service) Deliver(ctx context.Context, in bus.Incoming) error {
	ref, err := egress.Receive(in)
	if err != nil {
		return err
	}
	s.mu.Lock()
	sp, m := s.speaker, s.moderator
	s.mu.Unlock()
	if sp == nil || !sp.lease.Valid() {
		return nil // another instance's, or the next owner's
	}
	if isOrder(in.Event) {
		m.take(&moderation.Job{Ref: ref, Event: in.Event})
		return nil
	}
	if e := in.Event.Egress; e != nil && e.Type == event.EgressEvent {
		return nil // another part's
	}
	sp.take(false, &answer{ref: ref, event: in.Event})
	return nil
}
