package twitch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	twitchapi "github.com/nicklaw5/helix/v2"

	"parley.internal/gateway/moderator"
	"parley.internal/gateway/outbox"
	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/identity"
	"parley.internal/shared/lease"
	"parley.internal/shared/moderation"
)

// What the account has to grant, and be a moderator of the channel for
// (https://dev.twitch.tv/docs/authentication/scopes/).
const (
	scopeBan    = "moderator:manage:banned_users"
	scopeDelete = "moderator:manage:chat_messages"
)

// moderator carries out the orders for one channel, one after the other, while this instance has the channel's lease.
type enforcer struct {
	*outbox.KeyedQueue[*moderator.Job]
	service *Service
	login   string
}

func newModerator(s *Service, l lease.Lease) *enforcer {
	m := &enforcer{service: s, login: l.Key()}
	platform := moderator.Platform{HoldsLease: l.Valid, Act: m.act}
	m.KeyedQueue = outbox.NewCommands(s.ledger, identity.Twitch, Channel(m.login), s.log.With("channel", m.login), s.timing.outbox(),
		func(ctx context.Context, j *moderator.Job) (done bool, wait time.Duration) {
			return s.enforcer.Execute(ctx, j, platform)
		})
	return m
}

// act asks Twitch once; after a 401 once more, with another token.
func (m *enforcer) act(ctx context.Context, o moderation.Command) moderator.Answer {
	s := m.service
	scope := scopeBan
	if o.Kind == moderation.Delete {
		scope = scopeDelete
	}
	waiting, cancel := context.WithTimeout(ctx, s.timing.join)
	room, err := s.chat.await(waiting, m.login, false)
	cancel()
	if err != nil {
		return putOff(deadletter.PlatformUnavailable, err.Error(), s.timing.retry)
	}
	token, failed := m.token(ctx, scope, func(ctx context.Context) (credential.Token, error) { return s.tokens.Token(ctx, s.bot) })
	for again := false; failed == nil; again = true {
		a, unauthorized := s.moderate(ctx, token, room.id, o, scope)
		if !unauthorized || again {
			return a
		}
		token, failed = m.token(ctx, scope, func(ctx context.Context) (credential.Token, error) { return s.tokens.Invalid(ctx, s.bot, token) })
	}
	return *failed
}

// token obtains a token that may do it, and decides what a failure means. Nothing has been sent, so whatever may mend by
// itself is tried again.
func (m *enforcer) token(ctx context.Context, scope string, obtain func(context.Context) (credential.Token, error)) (credential.Token, *moderator.Answer) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	token, err := obtain(ctx)
	if err == nil {
		err = token.Require(scope)
	}
	if err == nil {
		return token, nil
	}
	a := putOff(deadletter.PlatformUnavailable, err.Error(), m.service.timing.retry)
	if _, ok := errors.AsType[*credential.MissingScopes](err); ok {
		a = refuse(deadletter.MissingScope, err.Error())
	} else if _, ok := errors.AsType[*credential.LoginNeeded](err); ok {
		a = refuse(deadletter.LoginNeeded, err.Error())
	} else if errors.Is(err, credential.ErrRefused) {
		a = refuse(deadletter.SenderRefused, err.Error())
	}
	return credential.Token{}, &a
}

func refuse(code deadletter.Reason, words string) moderator.Answer {
	return moderator.Answer{Outcome: moderator.Refused, Code: code, Words: words}
}

func putOff(code deadletter.Reason, words string, after time.Duration) moderator.Answer {
	return moderator.Answer{Outcome: moderator.PutOff, Code: code, Words: words, After: after}
}

// exchange is the transport of one request. The library gives its errors as texts only, and hides the status of an answer
// that it can't read.
type exchange struct {
	client    *http.Client
	connected atomic.Bool // from then on, Twitch may have got the request
	status    int         // 0 if there was no answer
}

// Do implements [twitchapi.HTTPClient].
func (x *exchange) Do(req *http.Request) (*http.Response, error) {
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { x.connected.Store(true) }}
	res, err := x.client.Do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if err == nil {
		x.status = res.StatusCode
	}
	return res, err
}

// api makes a client for one request, and gives what its transport will have seen.
func (s *Service) api(ctx context.Context, token credential.Token) (*twitchapi.Client, *exchange, error) {
	x := &exchange{client: s.http}
	client, err := twitchapi.NewClientWithContext(ctx, &twitchapi.Options{
		ClientID: s.app.ClientID, UserAccessToken: token.Access.Reveal(), APIBaseURL: strings.TrimSuffix(s.app.APIURL, "/"), HTTPClient: x,
	})
	return client, x, err
}

// moderate asks Twitch by https://dev.twitch.tv/docs/api/reference/#ban-user, #unban-user and #delete-chat-messages. Here,
// and nowhere before, ids lose their platform. unauthorized is a 401 that another token may not get.
func (s *Service) moderate(ctx context.Context, token credential.Token, broadcaster string, o moderation.Command, scope string) (a moderator.Answer, unauthorized bool) {
	ctx, cancel := context.WithTimeout(ctx, s.config.AnswerTimeout)
	defer cancel()
	user := o.User
	if o.Login != "" {
		var failed *moderator.Answer
		if user, failed, unauthorized = s.whoIs(ctx, token, o, scope); failed != nil {
			return *failed, unauthorized
		}
		defer func() { a.User = user }()
	}
	if user == s.bot && (o.Kind == moderation.Ban || o.Kind == moderation.Timeout) {
		return refuse(deadletter.RecipientRefused, "the account that acts for Parley does not silence itself"), false
	}
	api, x, err := s.api(ctx, token)
	if err != nil {
		return refuse(deadletter.NotConfigured, err.Error()), false
	}
	r := result{exchange: x, token: token}
	words := ""
	switch o.Kind {
	case moderation.Ban, moderation.Timeout:
		var res *twitchapi.BanUserResponse
		res, r.err = api.BanUser(&twitchapi.BanUserParams{BroadcasterID: broadcaster, ModeratorId: s.bot.ID(),
			Body: twitchapi.BanUserRequestBody{UserId: user.ID(), Duration: o.Seconds, Reason: o.Reason}})
		if r.err == nil {
			r.common = &res.ResponseCommon
			if len(res.Data.Bans) == 1 && !res.Data.Bans[0].EndTime.IsZero() {
				words = "until " + res.Data.Bans[0].EndTime.UTC().Format(time.RFC3339)
			}
		}
	case moderation.Unban:
		var res *twitchapi.UnbanUserResponse
		res, r.err = api.UnbanUser(&twitchapi.UnbanUserParams{BroadcasterID: broadcaster, ModeratorID: s.bot.ID(), UserID: user.ID()})
		if r.err == nil {
			r.common = &res.ResponseCommon
		}
	case moderation.Delete:
		var res *twitchapi.DeleteChatMessageResponse
		res, r.err = api.DeleteChatMessage(&twitchapi.DeleteChatMessageParams{BroadcasterID: broadcaster, ModeratorID: s.bot.ID(), MessageID: o.MessageID})
		if r.err == nil {
			r.common = &res.ResponseCommon
		}
	}
	if r.fine() {
		return moderator.Answer{Outcome: moderator.Done, Words: words}, false
	}
	return s.judge(r, o, scope)
}

// whoIs asks Twitch whom a name belongs to (https://dev.twitch.tv/docs/api/reference/#get-users). failed is nil if it is
// known then; asking that does nothing to anybody, so it is never unknown what came of it.
func (s *Service) whoIs(ctx context.Context, token credential.Token, o moderation.Command, scope string) (_ identity.UserID, failed *moderator.Answer, unauthorized bool) {
	api, x, err := s.api(ctx, token)
	if err != nil {
		a := refuse(deadletter.NotConfigured, err.Error())
		return identity.UserID{}, &a, false
	}
	r := result{exchange: x, token: token}
	found, err := api.GetUsers(&twitchapi.UsersParams{Logins: []string{o.Login}})
	if r.err = err; err == nil {
		r.common = &found.ResponseCommon
	}
	var a moderator.Answer
	switch {
	case !r.fine():
		a, unauthorized = s.judge(r, o, scope)
	case err != nil:
		a.Words = "who " + o.Login + " is can't be read: " + r.errorText()
	case len(found.Data.Users) != 1:
		a = refuse(deadletter.RecipientRefused, fmt.Sprintf("nobody on Twitch is called %s", o.Login))
	default:
		id, err := identity.New(identity.Twitch, found.Data.Users[0].ID)
		if err == nil {
			return id, nil, false
		}
		a = refuse(deadletter.RecipientRefused, err.Error())
	}
	if a.Outcome != moderator.Refused {
		a = putOff(cmp.Or(a.Code, deadletter.PlatformUnavailable), a.Words, max(a.After, s.timing.retry))
	}
	return identity.UserID{}, &a, unauthorized
}

// result is what came of one request.
type result struct {
	exchange *exchange
	common   *twitchapi.ResponseCommon // nil if the library could not read the answer, or there was none
	err      error                     // of the library
	token    credential.Token
}

// fine reports whether Twitch did it. An answer that says so and can't be read says so all the same.
func (r result) fine() bool {
	return r.exchange.status >= 200 && r.exchange.status < 300 && (r.err == nil || r.common == nil)
}

// maxSaid bounds what is repeated of Twitch's messages, in bytes.
const maxSaid = 300

// said is Twitch's own message, but not at any length, nor the token if it should stand in it.
func (r result) said() string {
	text := http.StatusText(r.exchange.status)
	if r.common != nil {
		text = cmp.Or(r.common.ErrorMessage, text)
	}
	if secret := r.token.Access.Reveal(); secret != "" {
		text = strings.ReplaceAll(text, secret, "[redacted]")
	}
	if len(text) > maxSaid {
		text = text[:maxSaid]
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// judge decides what an answer means that is no success, by the tables of response codes on the three pages.
func (s *Service) judge(r result, o moderation.Command, scope string) (a moderator.Answer, unauthorized bool) {
	status, said := r.exchange.status, r.said()
	words := fmt.Sprintf("status %d from Twitch: %s", status, said)
	says := func(part string) bool { return strings.Contains(strings.ToLower(said), part) }
	held := moderator.Answer{Outcome: moderator.Held, Words: words}
	switch {
	case status == 0 && !r.exchange.connected.Load():
		return putOff(deadletter.PlatformUnavailable, "no connection to Twitch: "+r.errorText(), s.timing.retry), false
	case status == 0:
		return moderator.Answer{Outcome: moderator.Unknown, Words: "no answer from Twitch: " + r.errorText()}, false
	case status >= 500, status == http.StatusRequestTimeout:
		return moderator.Answer{Outcome: moderator.Unknown, Words: words}, false
	case status == http.StatusTooManyRequests:
		return putOff(deadletter.RateLimited, words, s.resetIn(r)), false
	case status == http.StatusConflict:
		// somebody else is changing whether the person is banned at this moment: their change goes first
		return putOff(deadletter.RecipientRefused, words, time.Second), false
	case status == http.StatusUnauthorized && says("scope"):
		// Twitch knows better than what was stored when the bot logged in; the way out is the same
		return refuse(deadletter.MissingScope, fmt.Sprintf("%s; %s", words, &credential.MissingScopes{User: s.bot, Missing: []string{scope}})), false
	case status == http.StatusUnauthorized:
		return refuse(deadletter.SenderRefused, words), true
	case status == http.StatusForbidden:
		return refuse(deadletter.SenderRefused, words), false
	case status == http.StatusBadRequest && says("already banned") && (o.Kind == moderation.Ban || o.Kind == moderation.Timeout):
		return held, false // a ban holds longer than any time-out
	case status == http.StatusBadRequest && says("is not banned") && o.Kind == moderation.Unban:
		return held, false
	case status == http.StatusNotFound && o.Kind == moderation.Delete:
		return held, false // gone, or so old that Twitch deletes it no more: it does not tell which
	case status < 400:
		return refuse(deadletter.NotConfigured, fmt.Sprintf("TWITCH_API_URL answered %d, which Twitch's API does not", status)), false
	}
	return refuse(deadletter.RecipientRefused, words), false
}

func (r result) errorText() string {
	if r.err == nil {
		return "the connection broke off"
	}
	return strings.ReplaceAll(r.err.Error(), cmp.Or(r.token.Access.Reveal(), "\x00"), "[redacted]")
}

// resetIn is how long to wait after a 429 (https://dev.twitch.tv/docs/api/guide/#twitch-rate-limits).
func (s *Service) resetIn(r result) time.Duration {
	if r.common == nil {
		return time.Second
	}
	return untilReset(r.common.Header, s.now())
}

// untilReset reads the header that Twitch puts on each answer, within reason.
func untilReset(h http.Header, now time.Time) time.Duration {
	at, err := strconv.ParseInt(h.Get("Ratelimit-Reset"), 10, 64)
	if err != nil {
		return time.Second
	}
	return min(max(time.Unix(at, 0).Sub(now), 100*time.Millisecond), 30*time.Second)
}
