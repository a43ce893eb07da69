package twitch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"parley.internal/gateway/gap"
	"parley.internal/gateway/twitch/eventsub"
	"parley.internal/shared/credential"
	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// sourceEventSub is the source of EventSub's events, except for whispers: a whisper is a message, and has the source of
// the chat.
const sourceEventSub = sourceChat + ".eventsub"

// The types of EventSub's events. A raid and a new subscription also come over the chat, as a notice with the same event
// type: the first report counts (see duplicates). EventSub's kinds for gifts and renewals are not used. The chat reports
// gifts and renewals as typeNotice with "subgift", "submysterygift" and "resub".
const (
	typeFollow        = "twitch.follow"
	typeSubscribed    = typeNotice + noticeSub
	typeRaid          = typeNotice + noticeRaid
	typeStreamOnline  = "twitch.stream_online"
	typeStreamOffline = "twitch.stream_offline"
)

// The notices of the chat with a counterpart in EventSub.
const (
	noticeSub  = "sub"
	noticeRaid = "raid"
)

// botLease is the key of the lease for subscribing to EventSub as the bot. Twitch permits an account three sessions at a
// time, and still counts a session that is ending. So one instance subscribes as the bot, for all channels. No channel has
// this name.
const botLease = "eventsub.bot"

// broadcasterKinds are subscribed to with a broadcaster's login, and botKinds as the bot, in channels without a login. The
// bot needs no raids and subscriptions, because the chat reports them, and the bot may have only ten subscriptions.
var (
	broadcasterKinds = []*eventsub.Kind{eventsub.Follow, eventsub.Subscribe, eventsub.Raid, eventsub.Online, eventsub.Offline}
	botKinds         = []*eventsub.Kind{eventsub.Online, eventsub.Offline, eventsub.Follow}
)

func topics(kinds []*eventsub.Kind, login, id string) []eventsub.Topic {
	var all []eventsub.Topic
	for _, k := range kinds {
		all = append(all, eventsub.Topic{Kind: k, Channel: login, Broadcaster: id})
	}
	return all
}

// subscribeAsBroadcaster receives a channel's events with the broadcaster's login, until ctx is done. It waits for the
// login.
func (s *Service) subscribeAsBroadcaster(ctx context.Context, c *coverage) {
	login := c.lease.Key()
	t, err := s.chat.await(ctx, login, false)
	if err != nil {
		return // the lease has ended
	}
	id, err := identity.New(identity.Twitch, t.id)
	if err != nil {
		s.log.ErrorContext(ctx, "broadcaster id is invalid", "channel", login, "error", err)
		return
	}
	all := topics(broadcasterKinds, login, t.id)
	s.subscribe(ctx, c, id, func(context.Context) ([]eventsub.Topic, error) { return all, nil })
}

// subscribeAsBot receives the whispers to the bot, and the events of channels without a broadcaster's login, until ctx is
// done.
func (s *Service) subscribeAsBot(ctx context.Context, c *coverage) {
	s.subscribe(ctx, c, s.bot, func(ctx context.Context) ([]eventsub.Topic, error) {
		ids, err := s.events.Broadcasters(ctx, s.bot, s.channels)
		if err != nil {
			return nil, fmt.Errorf("read the ids of the channels: %w", err)
		}
		all := []eventsub.Topic{whisperTopic}
		for _, login := range s.channels {
			if ids[login] == "" {
				continue // the channel does not exist
			}
			id, err := identity.New(identity.Twitch, ids[login])
			if err != nil {
				return nil, fmt.Errorf("channel %s: %w", login, err)
			}
			switch _, err := s.tokens.Token(ctx, id); {
			case err == nil: // the owner of the channel's lease subscribes
			case isLoginNeeded(err):
				all = append(all, topics(botKinds, login, ids[login])...)
			default:
				return nil, err
			}
		}
		return all, nil
	})
}

func isLoginNeeded(err error) bool {
	_, ok := errors.AsType[*credential.LoginNeeded](err)
	return ok
}

func (s *Service) subscribe(ctx context.Context, c *coverage, account identity.UserID, topics func(context.Context) ([]eventsub.Topic, error)) {
	s.events.Listen(ctx, eventsub.Subscriber{
		Account: account, Topics: topics, IdleSince: c.since(gap.Events),
		OnNotification: func(n eventsub.Notification) {
			// Some notifications have no id of the event itself: two subscribers would make two events. So an instance without
			// the lease drops notifications, except for whispers: a whisper has an id, and perhaps no other receiver.
			if n.Topic != whisperTopic && !c.lease.Valid() {
				s.metrics.received.WithLabelValues("fenced").Inc()
				return
			}
			s.queue.add(notificationEvent(n, s.chat.self()))
		},
		OnGap: func(login string, from, to time.Time) {
			if login == "" {
				c.addGap(gap.Whispers, s.bot.String(), from, to)
				return
			}
			c.addGap(gap.Events, channelName(login), from, to)
		},
		OnIdle: func(since time.Time) { c.idle(gap.Events, since) },
	})
}

// notificationEvent converts a notification of EventSub (https://dev.twitch.tv/docs/eventsub/eventsub-reference/). It
// returns nil for a gift (the chat reports gifts with the giver), for the bot's own actions, and for malformed content.
//
// The event's id is derived from the event's own id or time, if Twitch gives one, and otherwise from the notification's id.
func notificationEvent(n eventsub.Notification, bot account) *event.Event {
	if n.Topic.Kind == eventsub.Whisper {
		return whisperEvent(n, bot)
	}
	var content struct {
		UserID          string    `json:"user_id"`
		UserLogin       string    `json:"user_login"`
		UserName        string    `json:"user_name"`
		BroadcasterName string    `json:"broadcaster_user_name"`
		FollowedAt      time.Time `json:"followed_at"`
		Tier            string    `json:"tier"`
		IsGift          bool      `json:"is_gift"`
		FromID          string    `json:"from_broadcaster_user_id"`
		FromLogin       string    `json:"from_broadcaster_user_login"`
		FromName        string    `json:"from_broadcaster_user_name"`
		Viewers         int       `json:"viewers"`
		StreamID        string    `json:"id"`
		StreamType      string    `json:"type"`
		StartedAt       time.Time `json:"started_at"`
	}
	if json.Unmarshal(n.Event, &content) != nil {
		return nil
	}
	t := n.Topic
	kind, id, at := "", n.ID, n.At
	payload := rawNotification{
		UserID: content.UserID, Username: content.UserLogin, DisplayName: content.UserName, RoomID: t.Broadcaster,
		Tier: content.Tier, Viewers: content.Viewers,
	}
	switch t.Kind {
	case eventsub.Follow:
		kind, id = typeFollow, digest.Of("follow", t.Broadcaster, content.UserID, content.FollowedAt.UTC().Format(time.RFC3339Nano))
		at = content.FollowedAt
	case eventsub.Subscribe:
		if content.IsGift {
			return nil
		}
		kind = typeSubscribed
	case eventsub.Raid:
		kind = typeRaid
		payload.UserID, payload.Username, payload.DisplayName = content.FromID, content.FromLogin, content.FromName
	case eventsub.Online:
		kind, id = typeStreamOnline, digest.Of("online", t.Broadcaster, cmp.Or(content.StreamID, n.ID))
		at = content.StartedAt
		payload.StreamID, payload.StreamType = content.StreamID, content.StreamType
		payload.UserID, payload.Username, payload.DisplayName = t.Broadcaster, t.Channel, content.BroadcasterName
	case eventsub.Offline:
		kind = typeStreamOffline
		payload.UserID, payload.Username, payload.DisplayName = t.Broadcaster, t.Channel, content.BroadcasterName
	default:
		return nil
	}
	user, err := identity.New(identity.Twitch, payload.UserID)
	if err != nil || user == bot.id && payload.UserID != t.Broadcaster {
		return nil
	}
	if at.IsZero() {
		at = n.At
	}
	e := newEvent(kind, id, t.Channel)
	e.Source, e.UserID = sourceEventSub, user.String()
	e.ExternalEvent = &event.ExternalEvent{
		ID: n.ID, Source: string(identity.Twitch) + ".eventsub", Kind: kind[len(typeNotice):], Version: t.Kind.Version,
		CreatedAt: at.UTC(), Payload: encode(payload), RawPayload: n.Event,
	}
	return e
}

// rawNotification is the payload of an EventSub event, with the field names of the chat's notices.
type rawNotification struct {
	UserID      string `json:"userId"` // the acting user; for a stream, the broadcaster
	Username    string `json:"username,omitzero"`
	DisplayName string `json:"displayName,omitzero"`
	RoomID      string `json:"roomId"`
	Tier        string `json:"tier,omitzero"` // 1000, 2000 or 3000
	Viewers     int    `json:"viewers,omitzero"`
	StreamID    string `json:"streamId,omitzero"`
	StreamType  string `json:"streamType,omitzero"` // live, for example
}
