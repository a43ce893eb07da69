package twitch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	twitchapi "github.com/nicklaw5/helix/v2"

	"parley.internal/gateway/moderator"
	"parley.internal/gateway/outbox"
	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/identity"
	"parley.internal/shared/lease"
	"parley.internal/shared/moderation"
	helix "parley.internal/shared/twitch"
)

// The scopes for moderation. The bot must also be a moderator of the channel
// (https://dev.twitch.tv/docs/authentication/scopes/).
const (
	scopeBan    = "moderator:manage:banned_users"
	scopeDelete = "moderator:manage:chat_messages"
)

// enforcer executes the moderation commands for one channel in order, while this instance has the channel's lease.
type enforcer struct {
	*outbox.KeyedQueue[*moderator.Job]
	service *Service
	login   string
}

func newEnforcer(s *Service, l lease.Lease) *enforcer {
	m := &enforcer{service: s, login: l.Key()}
	platform := moderator.Platform{HoldsLease: l.Valid, Act: m.act}
	m.KeyedQueue = outbox.NewCommands(s.ledger, identity.Twitch, channelName(m.login), s.log.With("channel", m.login), s.timing.outbox(),
		func(ctx context.Context, j *moderator.Job) (done bool, wait time.Duration) {
			return s.executor.Execute(ctx, j, platform)
		})
	return m
}

// act sends one command to Twitch; after a 401 once more, with another token.
func (m *enforcer) act(ctx context.Context, o moderation.Command) moderator.Answer {
	s := m.service
	scope := scopeBan
	if o.Kind == moderation.Delete {
		scope = scopeDelete
	}
	account := s.account(scope)
	token, failed := account.Token(ctx) // first, because without a login the chat joins no channel
	if failed != nil {
		return answerTo(failed, s.timing.retry)
	}
	waiting, cancel := context.WithTimeout(ctx, s.timing.join)
	defer cancel()
	channel, err := s.chat.await(waiting, m.login, false)
	if err != nil {
		return moderator.Answer{Outcome: moderator.PutOff, Code: deadletter.PlatformUnavailable, Words: err.Error(), After: s.timing.retry}
	}
	done := moderator.Answer{Outcome: moderator.Done}
	user := o.User
	failed = account.Do(ctx, token, func(token credential.Token) (failed *helix.Error) {
		ctx, cancel := context.WithTimeout(ctx, s.config.ReplyTimeout)
		defer cancel()
		if o.Login != "" {
			if user, failed = s.userOf(ctx, token, o.Login); failed != nil {
				return failed
			}
		}
		done.Words, failed = s.moderate(ctx, token, channel.id, user, o)
		return failed
	})
	a := done
	if failed != nil {
		a = answerTo(failed, s.timing.retry)
	}
	if o.Login != "" {
		a.User = user
	}
	return a
}

// answerTo converts an error of the client. Without a valid token, the command is refused. retry is the pause before
// another attempt if Twitch names none.
func answerTo(e *helix.Error, retry time.Duration) moderator.Answer {
	a := moderator.Answer{Outcome: moderator.Refused, Code: e.Reason, Words: e.Err.Error()}
	switch e.Outcome {
	case helix.AlreadyDone:
		a.Outcome = moderator.Held
	case helix.Unknown:
		a.Outcome, a.Code = moderator.Unknown, ""
	case helix.NotDone:
		if e.Reason == deadletter.RateLimited {
			retry = rateLimitPause
		}
		a.Outcome, a.After = moderator.PutOff, cmp.Or(e.After, retry)
	}
	return a
}

// refusal is a refusal by Parley itself.
func refusal(reason deadletter.Reason, err error) *helix.Error {
	return &helix.Error{Outcome: helix.Refused, Reason: reason, Err: err}
}

// moderate executes a command against a user. It returns the end of a time-out in words. Ids lose their platform here.
func (s *Service) moderate(ctx context.Context, token credential.Token, broadcaster string, user identity.UserID, o moderation.Command) (words string, failed *helix.Error) {
	if user == s.bot && (o.Kind == moderation.Ban || o.Kind == moderation.Timeout) {
		return "", refusal(deadletter.RecipientRefused, errors.New("the account that acts for Parley does not silence itself"))
	}
	switch o.Kind {
	case moderation.Ban, moderation.Timeout:
		failed = s.api.Call(ctx, token, helix.BanUser, func(api *twitchapi.Client) error {
			res, err := api.BanUser(&twitchapi.BanUserParams{BroadcasterID: broadcaster, ModeratorId: s.bot.ID(),
				Body: twitchapi.BanUserRequestBody{UserId: user.ID(), Duration: o.Seconds, Reason: o.Reason}})
			if err == nil && len(res.Data.Bans) == 1 && !res.Data.Bans[0].EndTime.IsZero() {
				words = "until " + res.Data.Bans[0].EndTime.UTC().Format(time.RFC3339)
			}
			return err
		})
	case moderation.Unban:
		failed = s.api.Call(ctx, token, helix.UnbanUser, func(api *twitchapi.Client) error {
			_, err := api.UnbanUser(&twitchapi.UnbanUserParams{BroadcasterID: broadcaster, ModeratorID: s.bot.ID(), UserID: user.ID()})
			return err
		})
	case moderation.Delete:
		failed = s.api.Call(ctx, token, helix.DeleteMessage, func(api *twitchapi.Client) error {
			_, err := api.DeleteChatMessage(&twitchapi.DeleteChatMessageParams{BroadcasterID: broadcaster, ModeratorID: s.bot.ID(), MessageID: o.MessageID})
			return err
		})
	}
	return words, failed
}

// userOf returns the user with a login.
func (s *Service) userOf(ctx context.Context, token credential.Token, login string) (identity.UserID, *helix.Error) {
	ids, failed := s.api.UserIDs(ctx, token, []string{login})
	if failed != nil {
		return identity.UserID{}, failed
	}
	if ids[login] == "" {
		return identity.UserID{}, refusal(deadletter.RecipientRefused, fmt.Errorf("nobody on Twitch is called %s", login))
	}
	user, err := identity.New(identity.Twitch, ids[login])
	if err != nil {
		return identity.UserID{}, refusal(deadletter.RecipientRefused, err)
	}
	return user, nil
}
