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
	// maxCommands is the number of concurrent moderation commands.
	maxCommands = 16
	// maxPause bounds the pause before the next attempt at a command, even if Discord asks for more.
	maxPause = 30 * time.Second
)

// enforcer executes moderation commands while this instance holds the lease. Commands for one channel are executed in
// order; commands for different channels are executed concurrently.
type enforcer struct {
	*outbox.KeyedQueue[*moderator.Job]
	service *Service
	lease   lease.Lease
	gateway *gateway
	guilds  *guilds
	slots   chan struct{}
}

func newEnforcer(s *Service, l lease.Lease, g *gateway, guilds *guilds) *enforcer {
	e := &enforcer{service: s, lease: l, gateway: g, guilds: guilds, slots: make(chan struct{}, maxCommands)}
	e.KeyedQueue = outbox.NewCommands(s.ledger, identity.Discord, "", s.log, s.timing.outbox(), e.execute)
	return e
}

// execute makes one attempt at a command. It reports whether the command is finished, or else the pause before the next
// attempt.
func (e *enforcer) execute(ctx context.Context, j *moderator.Job) (done bool, pause time.Duration) {
	if !e.gateway.connected.Load() {
		return false, e.service.timing.minBackoff
	}
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-ctx.Done():
		return false, 0
	}
	done, pause = e.service.executor.Execute(ctx, j, moderator.Platform{HoldsLease: e.lease.Valid, Act: e.act})
	return done, min(pause, maxPause)
}

// refuse is the answer for a command that will never succeed.
func refuse(code deadletter.Reason, words string) moderator.Answer {
	return moderator.Answer{Outcome: moderator.Refused, Code: code, Words: words}
}

// alreadyDone is the answer for a command without effect, for example an unban of a user without a ban.
func alreadyDone(words string) moderator.Answer {
	return moderator.Answer{Outcome: moderator.Held, Words: words}
}

// act sends a command to Discord once. Only the requests made here use Discord's own ids, without the platform's prefix.
func (e *enforcer) act(ctx context.Context, c moderation.Command) moderator.Answer {
	if c.Platform() != identity.Discord {
		return refuse(deadletter.InvalidEvent, fmt.Sprintf("%s is not a Discord channel", c.Channel))
	}
	if c.Kind == moderation.Delete {
		return e.deleteMessage(ctx, c)
	}
	guild, failed := e.guildOf(ctx, c.Room())
	if failed != nil {
		return *failed
	}
	switch c.Kind {
	case moderation.Ban:
		return e.ban(ctx, c, guild)
	case moderation.Timeout:
		return e.timeOut(ctx, c, guild)
	case moderation.Unban:
		return e.unban(ctx, c, guild)
	}
	return refuse(deadletter.InvalidEvent, fmt.Sprintf("%q is not a Discord action", c.Kind))
}

// guildOf returns the id of a channel's guild. For a channel unknown from the gateway connection, such as an archived
// thread, it asks the REST API (https://discord.com/developers/docs/resources/channel#get-channel).
func (e *enforcer) guildOf(ctx context.Context, channel string) (id string, failed *moderator.Answer) {
	if id := e.guilds.locate(channel, "").guildID; id != "" {
		return id, nil
	}
	var found struct {
		Guild string `json:"guild_id"`
	}
	if f := e.request(ctx, http.MethodGet, "channels/", channel, "", nil, &found); f != nil {
		a := e.queryAnswer(f)
		return "", &a
	}
	if _, ok := parseSnowflake(found.Guild); !ok {
		a := refuse(deadletter.RecipientRefused, "a direct conversation belongs to no server, so a user cannot be banned from it")
		return "", &a
	}
	return found.Guild, nil
}

// deleteMessage deletes a message (https://discord.com/developers/docs/resources/message#delete-message).
func (e *enforcer) deleteMessage(ctx context.Context, c moderation.Command) moderator.Answer {
	f := e.request(ctx, http.MethodDelete, "channels/"+c.Room()+"/messages/", c.MessageID, c.Reason, nil, nil)
	switch {
	case f == nil:
		return moderator.Answer{Outcome: moderator.Done}
	case f.code == discordgo.ErrCodeUnknownMessage:
		return alreadyDone(f.Error())
	}
	return e.answerOf(f)
}

// ban bans a user (https://discord.com/developers/docs/resources/guild#create-guild-ban). For a banned user Discord does
// nothing and reports success.
func (e *enforcer) ban(ctx context.Context, c moderation.Command, guild string) moderator.Answer {
	if f := e.request(ctx, http.MethodPut, "guilds/"+guild+"/bans/", c.User.ID(), c.Reason, struct{}{}, nil); f != nil {
		return e.answerOf(f)
	}
	return moderator.Answer{Outcome: moderator.Done}
}

// timeoutChange is the body of a request to start or end a time-out
// (https://discord.com/developers/docs/resources/guild#modify-guild-member).
type timeoutChange struct {
	Until *time.Time `json:"communication_disabled_until"` // nil ends it
}

// timeOut starts a time-out of a member. A banned user is not a member and cannot write anyway.
func (e *enforcer) timeOut(ctx context.Context, c moderation.Command, guild string) moderator.Answer {
	until := e.service.now().Add(time.Duration(c.Seconds) * time.Second).UTC().Truncate(time.Millisecond)
	f := e.request(ctx, http.MethodPatch, "guilds/"+guild+"/members/", c.User.ID(), c.Reason, timeoutChange{&until}, nil)
	switch {
	case f == nil:
		return moderator.Answer{Outcome: moderator.Done, Words: "until " + until.Format(time.RFC3339)}
	case f.code != discordgo.ErrCodeUnknownMember:
		return e.answerOf(f)
	}
	// https://discord.com/developers/docs/resources/guild#get-guild-ban
	query := e.request(ctx, http.MethodGet, "guilds/"+guild+"/bans/", c.User.ID(), "", nil, nil)
	switch {
	case query == nil:
		return alreadyDone("banned: " + f.Error())
	case query.permanent():
		return e.answerOf(f) // the user has left the guild: report the first error
	}
	return e.queryAnswer(query)
}

// unban ends a ban (https://discord.com/developers/docs/resources/guild#remove-guild-ban). For a user without a ban it
// ends the time-out.
func (e *enforcer) unban(ctx context.Context, c moderation.Command, guild string) moderator.Answer {
	f := e.request(ctx, http.MethodDelete, "guilds/"+guild+"/bans/", c.User.ID(), c.Reason, nil, nil)
	switch {
	case f == nil:
		return moderator.Answer{Outcome: moderator.Done}
	case f.code != discordgo.ErrCodeUnknownBan:
		return e.answerOf(f)
	}
	// https://discord.com/developers/docs/resources/guild#get-guild-member
	var current timeoutChange
	query := e.request(ctx, http.MethodGet, "guilds/"+guild+"/members/", c.User.ID(), "", nil, &current)
	switch {
	case query != nil && (query.code == discordgo.ErrCodeUnknownMember || query.code == discordgo.ErrCodeUnknownUser):
		return alreadyDone(f.Error())
	case query != nil:
		return e.queryAnswer(query)
	case current.Until == nil || !current.Until.After(e.service.now()):
		return alreadyDone(f.Error())
	}
	f = e.request(ctx, http.MethodPatch, "guilds/"+guild+"/members/", c.User.ID(), c.Reason, timeoutChange{}, nil)
	switch {
	case f == nil:
		return moderator.Answer{Outcome: moderator.Done, Words: "the time-out"}
	case f.code == discordgo.ErrCodeUnknownMember:
		return alreadyDone(f.Error()) // the user has just left
	}
	return e.answerOf(f)
}

// request sends one request for path+id; the rate-limit route is path. Discord writes the reason into the guild's audit
// log (https://discord.com/developers/docs/resources/audit-log). The result is nil after success.
func (e *enforcer) request(ctx context.Context, method, path, id, reason string, in, out any) *failure {
	var options []discordgo.RequestOption
	if reason != "" {
		options = append(options, discordgo.WithAuditLogReason(url.PathEscape(reason)))
	}
	err := e.service.rest.do(ctx, method, method+" "+path, path+id, in, out, options...)
	f, _ := errors.AsType[*failure](err)
	return f
}

// answerOf returns the answer for a failed request.
func (e *enforcer) answerOf(f *failure) moderator.Answer {
	switch {
	case f.unknown:
		return moderator.Answer{Outcome: moderator.Unknown, Words: f.Error()}
	case f.permanent():
		refusal := f.deadLetterError()
		return refuse(refusal.Reason, refusal.Err.Error())
	}
	a := moderator.Answer{Outcome: moderator.PutOff, Code: deadletter.PlatformUnavailable, Words: f.Error(), After: e.service.timing.retry}
	switch {
	case f.status == http.StatusUnauthorized:
		// wait for a connection with a valid token
		a.Code, a.Words = deadletter.NoConnection, "DISCORD_BOT_TOKEN is refused: "+f.Error()
		e.gateway.reconnect(errors.New(a.Words))
	case f.limited:
		a.Code, a.After = deadletter.RateLimited, min(f.retryAfter, maxPause)
	}
	return a
}

// queryAnswer returns the answer for a failed query. Unlike after a failed change, the command certainly had no effect.
func (e *enforcer) queryAnswer(f *failure) moderator.Answer {
	a := e.answerOf(f)
	if a.Outcome == moderator.Unknown {
		a.Outcome, a.Code, a.After = moderator.PutOff, deadletter.PlatformUnavailable, e.service.timing.retry
	}
	return a
}
