package discord

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/bwmarrin/discordgo"

	"parley.internal/gateway/moderator"
	"parley.internal/gateway/outbox"
	"parley.internal/shared/deadletter"
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
// for several at the same time.
type enforcer struct {
	*outbox.KeyedQueue[*moderator.Job]
	service *Service
	lease   lease.Lease
	gateway *gateway
	guilds  *guilds
	slots   chan struct{}
}

func newModerator(s *Service, l lease.Lease, g *gateway, known *guilds) *enforcer {
	m := &enforcer{service: s, lease: l, gateway: g, guilds: known, slots: make(chan struct{}, acting)}
	m.KeyedQueue = outbox.NewCommands(s.ledger, identity.Discord, "", s.log, s.timing.outbox(), m.carry)
	return m
}

func (m *enforcer) carry(ctx context.Context, j *moderator.Job) (done bool, pause time.Duration) {
	if !m.gateway.up.Load() {
		return false, m.service.timing.minBackoff
	}
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return false, 0
	}
	done, pause = m.service.enforcer.Execute(ctx, j, moderator.Platform{HoldsLease: m.lease.Valid, Act: m.act})
	return done, min(pause, maxPause)
}

func refuse(code deadletter.Reason, words string) moderator.Answer {
	return moderator.Answer{Outcome: moderator.Refused, Code: code, Words: words}
}

func held(words string) moderator.Answer {
	return moderator.Answer{Outcome: moderator.Held, Words: words}
}

// act asks Discord once. Here, and nowhere before, ids lose their platform.
func (m *enforcer) act(ctx context.Context, o moderation.Command) moderator.Answer {
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
func (m *enforcer) guildOf(ctx context.Context, channel string) (id string, failed *moderator.Answer) {
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
func (m *enforcer) deleteMessage(ctx context.Context, o moderation.Command) moderator.Answer {
	f := m.ask(ctx, http.MethodDelete, "channels/"+o.Room()+"/messages/", o.MessageID, o.Reason, nil, nil)
	switch {
	case f == nil:
		return moderator.Answer{Outcome: moderator.Done}
	case f.code == discordgo.ErrCodeUnknownMessage:
		return held(f.Error())
	}
	return m.judge(f)
}

// ban is https://discord.com/developers/docs/resources/guild#create-guild-ban, which does nothing more, and says so in no
// way, to one who is banned.
func (m *enforcer) ban(ctx context.Context, o moderation.Command, guild string) moderator.Answer {
	if f := m.ask(ctx, http.MethodPut, "guilds/"+guild+"/bans/", o.User.ID(), o.Reason, struct{}{}, nil); f != nil {
		return m.judge(f)
	}
	return moderator.Answer{Outcome: moderator.Done}
}

// silence is the change of a member that is a time-out
// (https://discord.com/developers/docs/resources/guild#modify-guild-member).
type silence struct {
	Until *time.Time `json:"communication_disabled_until"` // nil ends it
}

// timeOut silences a member. One who is banned is no member, and is silent for longer.
func (m *enforcer) timeOut(ctx context.Context, o moderation.Command, guild string) moderator.Answer {
	until := m.service.now().Add(time.Duration(o.Seconds) * time.Second).UTC().Truncate(time.Millisecond)
	f := m.ask(ctx, http.MethodPatch, "guilds/"+guild+"/members/", o.User.ID(), o.Reason, silence{&until}, nil)
	switch {
	case f == nil:
		return moderator.Answer{Outcome: moderator.Done, Words: "until " + until.Format(time.RFC3339)}
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
func (m *enforcer) unban(ctx context.Context, o moderation.Command, guild string) moderator.Answer {
	f := m.ask(ctx, http.MethodDelete, "guilds/"+guild+"/bans/", o.User.ID(), o.Reason, nil, nil)
	switch {
	case f == nil:
		return moderator.Answer{Outcome: moderator.Done}
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
		return moderator.Answer{Outcome: moderator.Done, Words: "the time-out"}
	case f.code == discordgo.ErrCodeUnknownMember:
		return held(f.Error()) // has left meanwhile
	}
	return m.judge(f)
}

// ask makes one request for what is called id in path; the limits are those of the path. The reason goes into the
// server's audit log (https://discord.com/developers/docs/resources/audit-log).
func (m *enforcer) ask(ctx context.Context, method, path, id, reason string, in, out any) *failure {
	var options []discordgo.RequestOption
	if reason != "" {
		options = append(options, discordgo.WithAuditLogReason(url.PathEscape(reason)))
	}
	err := m.service.rest.do(ctx, method, method+" "+path, path+id, in, out, options...)
	f, _ := errors.AsType[*failure](err)
	return f
}

// judge decides what an answer means that is no success.
func (m *enforcer) judge(f *failure) moderator.Answer {
	switch {
	case f.unknown:
		return moderator.Answer{Outcome: moderator.Unknown, Words: f.Error()}
	case decided(f):
		why := reason(f)
		return refuse(why.Reason, why.Err.Error())
	}
	a := moderator.Answer{Outcome: moderator.PutOff, Code: deadletter.PlatformUnavailable, Words: f.Error(), After: m.service.timing.retry}
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
func (m *enforcer) nothingDone(f *failure) moderator.Answer {
	a := m.judge(f)
	if a.Outcome == moderator.Unknown {
		a.Outcome, a.Code, a.After = moderator.PutOff, deadletter.PlatformUnavailable, m.service.timing.retry
	}
	return a
}
