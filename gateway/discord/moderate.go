package discord

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/bwmarrin/discordgo"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/lease"
	"parley.internal/shared/moderation"
)

const (
	// acting is how many orders are carried out at a time.
	acting = 16
	// maxPause bounds how long an order waits before it is tried again, whatever Discord says.
	maxPause = 30 * time.Second
)

// moderator carries out the orders while this instance has the session: those for one channel one after the other, those
// for several at the same time. It works beside the speaker, so that who has to be silenced is not waited for behind
// what Discord's limits hold up. An action keeps no order with what is said.
//
// As for the speaker, the ledger is what tells which orders there are; what comes by the bus only tells it sooner.
type moderator struct {
	service *Service
	lease   lease.Lease
	gateway *gateway
	guilds  *guilds
	ctx     context.Context // nothing is begun after it
	slots   chan struct{}
	wg      sync.WaitGroup

	mu       sync.Mutex
	channels map[string][]*moderation.Job // by the event's channel; each has a goroutine
	queued   map[string]bool              // by id, all of them
	ended    bool
}

func newModerator(ctx context.Context, s *Service, l lease.Lease, g *gateway, known *guilds) *moderator {
	return &moderator{
		service: s, lease: l, gateway: g, guilds: known, ctx: ctx, slots: make(chan struct{}, acting),
		channels: map[string][]*moderation.Job{}, queued: map[string]bool{},
	}
}

// isOrder reports whether an egress event is a moderator's.
func isOrder(e *event.Event) bool {
	return e.Type == moderation.Type && e.Egress != nil && e.Egress.Type == event.EgressEvent
}

// take has an order carried out, if that is not under way. One that finds no room is found again in the ledger.
func (m *moderator) take(j *moderation.Job) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended || m.queued[j.Ref.ID] || len(m.queued) >= maxQueue {
		return
	}
	m.queued[j.Ref.ID] = true
	channel := j.Event.Channel
	queue, busy := m.channels[channel]
	m.channels[channel] = append(queue, j)
	if !busy {
		m.wg.Go(func() { m.serve(channel) }) // ends when the channel has no orders, or with ctx
	}
}

// wait returns when ctx is done and what had begun is brought to its end.
func (m *moderator) wait() {
	<-m.ctx.Done()
	m.mu.Lock()
	m.ended = true
	m.mu.Unlock()
	m.wg.Wait()
}

// serve carries out a channel's orders until there is none.
func (m *moderator) serve(channel string) {
	for m.ctx.Err() == nil {
		m.mu.Lock()
		queue := m.channels[channel]
		if len(queue) == 0 {
			delete(m.channels, channel)
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
		first := queue[0]
		done, pause := m.carry(first)
		if !done {
			sleep(m.ctx, min(pause, maxPause))
			continue
		}
		m.mu.Lock()
		m.channels[channel] = m.channels[channel][1:]
		delete(m.queued, first.Ref.ID)
		m.mu.Unlock()
	}
}

func (m *moderator) carry(j *moderation.Job) (done bool, pause time.Duration) {
	if !m.gateway.up.Load() {
		return false, m.service.timing.minBackoff
	}
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-m.ctx.Done():
		return false, 0
	}
	return m.service.enforcer.Carry(m.ctx, j, moderation.Platform{Mine: m.lease.Valid, Act: m.act})
}

func refuse(code deadletter.Reason, words string) moderation.Answer {
	return moderation.Answer{Outcome: moderation.Refused, Code: code, Words: words}
}

func held(words string) moderation.Answer {
	return moderation.Answer{Outcome: moderation.Held, Words: words}
}

// act asks Discord once. Here, and nowhere before, ids lose their platform.
func (m *moderator) act(ctx context.Context, o moderation.Order) moderation.Answer {
	if o.Platform() != identity.Discord {
		return refuse(deadletter.InvalidEvent, fmt.Sprintf("%s is no channel of Discord", o.Channel))
	}
	if o.Kind == moderation.Delete {
		return m.deleteMessage(ctx, o)
	}
	guild, failed := m.guildOf(ctx, o.Room())
	if failed != nil {
		return *failed
	}
	switch o.Kind {
	case moderation.Ban:
		return m.ban(ctx, o, guild)
	case moderation.Timeout:
		return m.timeOut(ctx, o, guild)
	case moderation.Unban:
		return m.unban(ctx, o, guild)
	}
	return refuse(deadletter.InvalidEvent, fmt.Sprintf("%q is no action on Discord", o.Kind))
}

// guildOf finds the server that a channel belongs to. What the gateway has not told, as of a thread that is archived,
// Discord is asked for (https://discord.com/developers/docs/resources/channel#get-channel).
func (m *moderator) guildOf(ctx context.Context, channel string) (id string, failed *moderation.Answer) {
	if id := m.guilds.place(channel, "").guildID; id != "" {
		return id, nil
	}
	var found struct {
		Guild string `json:"guild_id"`
	}
	if f := m.ask(ctx, http.MethodGet, "channels/", channel, "", nil, &found); f != nil {
		a := m.nothingDone(f)
		return "", &a
	}
	if _, ok := parseSnowflake(found.Guild); !ok {
		a := refuse(deadletter.RecipientRefused, "a direct conversation belongs to no server, from which somebody could be kept out")
		return "", &a
	}
	return found.Guild, nil
}

// deleteMessage is https://discord.com/developers/docs/resources/message#delete-message
func (m *moderator) deleteMessage(ctx context.Context, o moderation.Order) moderation.Answer {
	f := m.ask(ctx, http.MethodDelete, "channels/"+o.Room()+"/messages/", o.MessageID, o.Reason, nil, nil)
	switch {
	case f == nil:
		return moderation.Answer{Outcome: moderation.Done}
	case f.code == discordgo.ErrCodeUnknownMessage:
		return held(f.Error())
	}
	return m.judge(f)
}

// ban is https://discord.com/developers/docs/resources/guild#create-guild-ban, which does nothing more, and says so in no
// way, to one who is banned.
func (m *moderator) ban(ctx context.Context, o moderation.Order, guild string) moderation.Answer {
	if f := m.ask(ctx, http.MethodPut, "guilds/"+guild+"/bans/", o.User.ID(), o.Reason, struct{}{}, nil); f != nil {
		return m.judge(f)
	}
	return moderation.Answer{Outcome: moderation.Done}
}

// silence is the change of a member that is a time-out
// (https://discord.com/developers/docs/resources/guild#modify-guild-member).
type silence struct {
	Until *time.Time `json:"communication_disabled_until"` // nil ends it
}

// timeOut silences a member. One who is banned is no member, and is silent for longer.
func (m *moderator) timeOut(ctx context.Context, o moderation.Order, guild string) moderation.Answer {
	until := m.service.now().Add(time.Duration(o.Seconds) * time.Second).UTC().Truncate(time.Millisecond)
	f := m.ask(ctx, http.MethodPatch, "guilds/"+guild+"/members/", o.User.ID(), o.Reason, silence{&until}, nil)
	switch {
	case f == nil:
		return moderation.Answer{Outcome: moderation.Done, Words: "until " + until.Format(time.RFC3339)}
	case f.code != discordgo.ErrCodeUnknownMember:
		return m.judge(f)
	}
	// https://discord.com/developers/docs/resources/guild#get-guild-ban
	asked := m.ask(ctx, http.MethodGet, "guilds/"+guild+"/bans/", o.User.ID(), "", nil, nil)
	switch {
	case asked == nil:
		return held("banned: " + f.Error())
	case decided(asked):
		return m.judge(f) // somebody who has left and may come back: what Discord said of that
	}
	return m.nothingDone(asked)
}

// unban ends a ban (https://discord.com/developers/docs/resources/guild#remove-guild-ban), or else a time-out.
func (m *moderator) unban(ctx context.Context, o moderation.Order, guild string) moderation.Answer {
	f := m.ask(ctx, http.MethodDelete, "guilds/"+guild+"/bans/", o.User.ID(), o.Reason, nil, nil)
	switch {
	case f == nil:
		return moderation.Answer{Outcome: moderation.Done}
	case f.code != discordgo.ErrCodeUnknownBan:
		return m.judge(f)
	}
	// https://discord.com/developers/docs/resources/guild#get-guild-member
	var is silence
	asked := m.ask(ctx, http.MethodGet, "guilds/"+guild+"/members/", o.User.ID(), "", nil, &is)
	switch {
	case asked != nil && (asked.code == discordgo.ErrCodeUnknownMember || asked.code == discordgo.ErrCodeUnknownUser):
		return held(f.Error())
	case asked != nil:
		return m.nothingDone(asked)
	case is.Until == nil || !is.Until.After(m.service.now()):
		return held(f.Error())
	}
	f = m.ask(ctx, http.MethodPatch, "guilds/"+guild+"/members/", o.User.ID(), o.Reason, silence{}, nil)
	switch {
	case f == nil:
		return moderation.Answer{Outcome: moderation.Done, Words: "the time-out"}
	case f.code == discordgo.ErrCodeUnknownMember:
		return held(f.Error()) // has left meanwhile
	}
	return m.judge(f)
}

// ask makes one request for what is called id in path; the limits are those of the path. The reason goes into the
// server's audit log (https://discord.com/developers/docs/resources/audit-log).
func (m *moderator) ask(ctx context.Context, method, path, id, reason string, in, out any) *failure {
	var options []discordgo.RequestOption
	if reason != "" {
		options = append(options, discordgo.WithAuditLogReason(url.PathEscape(reason)))
	}
	err := m.service.rest.do(ctx, method, method+" "+path, path+id, in, out, options...)
	f, _ := errors.AsType[*failure](err)
	return f
}

// judge decides what an answer means that is no success.
func (m *moderator) judge(f *failure) moderation.Answer {
	switch {
	case f.unknown:
		return moderation.Answer{Outcome: moderation.Unknown, Words: f.Error()}
	case decided(f):
		why := reason(f)
		return refuse(why.Reason, why.Err.Error())
	}
	a := moderation.Answer{Outcome: moderation.PutOff, Code: deadletter.PlatformUnavailable, Words: f.Error(), After: m.service.timing.retry}
	switch {
	case f.status == http.StatusUnauthorized:
		// the same as no connection, which is looked at again
		a.Code, a.Words = deadletter.NoConnection, "DISCORD_BOT_TOKEN is refused: "+f.Error()
		m.gateway.renew(errors.New(a.Words))
	case f.limited:
		a.Code, a.After = deadletter.RateLimited, min(f.after, maxPause)
	}
	return a
}

// nothingDone is judge for a question, which does nothing to anybody: it is never unknown what came of it.
func (m *moderator) nothingDone(f *failure) moderation.Answer {
	a := m.judge(f)
	if a.Outcome == moderation.Unknown {
		a.Outcome, a.Code, a.After = moderation.PutOff, deadletter.PlatformUnavailable, m.service.timing.retry
	}
	return a
}
