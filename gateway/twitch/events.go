package twitch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"parley.internal/gateway/gap"
	"parley.internal/gateway/twitch/eventsub"
	"parley.internal/shared/credential"
	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// SourceEventSub is the source of the events that EventSub tells of, but of whispers: those are messages as in the chat,
// and have its source.
const SourceEventSub = Source + ".eventsub"

// The types of the events that EventSub tells of. A raid and a new subscription come by the chat, too, as a notice:
// they are the same event of the same type then, and whoever tells it first is believed (see twins). All that EventSub
// could tell of gifts and of subscriptions that go on comes by the chat alone, as TypeNotice with "subgift",
// "submysterygift" and "resub".
const (
	TypeFollow        = "twitch.follow"
	TypeSubscribed    = TypeNotice + noticeSub
	TypeRaid          = TypeNotice + noticeRaid
	TypeStreamOnline  = "twitch.stream_online"
	TypeStreamOffline = "twitch.stream_offline"
)

// The notices of the chat that EventSub tells of, too.
const (
	noticeSub  = "sub"
	noticeRaid = "raid"
)

// botLease is what the lease of listening to EventSub as the bot is for. Twitch lets one account have three sessions at a
// time, dying ones included: so one instance listens as the bot, for all channels. No channel has such a name.
const botLease = "eventsub.bot"

// asBroadcaster is what a broadcaster's own account listens to, and asBot what the bot's does in the channels of those
// who have not logged in. There the chat tells of raids and subscriptions, which costs nothing of the ten subscriptions
// that the bot may have.
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

// listenAsBroadcaster listens to what happens in a channel, once its broadcaster has logged in, until ctx is done.
func (s *Service) listenAsBroadcaster(ctx context.Context, a *coverage) {
	channel := a.lease.Key()
	p, err := s.chat.await(ctx, channel, false)
	if err != nil {
		return // the lease is over
	}
	id, err := identity.New(identity.Twitch, p.id)
	if err != nil {
		s.log.ErrorContext(ctx, "can't listen to what happens in a channel", "channel", channel, "error", err)
		return
	}
	all := topics(broadcasterKinds, channel, p.id)
	s.listen(ctx, a, id, func(context.Context) ([]eventsub.Topic, error) { return all, nil })
}

// listenAsBot listens to what is whispered to the bot, and to what happens in the channels whose broadcasters have not
// logged in, until ctx is done.
func (s *Service) listenAsBot(ctx context.Context, a *coverage) {
	s.listen(ctx, a, s.bot, func(ctx context.Context) ([]eventsub.Topic, error) {
		ids, err := s.events.Broadcasters(ctx, s.bot, s.channels)
		if err != nil {
			return nil, err
		}
		all := []eventsub.Topic{whisperTopic}
		for _, name := range s.channels {
			if ids[name] == "" {
				continue // there is no such channel, as the chat finds out, too
			}
			id, err := identity.New(identity.Twitch, ids[name])
			if err != nil {
				return nil, fmt.Errorf("channel %s: %w", name, err)
			}
			switch _, err := s.tokens.Token(ctx, id); {
			case err == nil: // its lease's owner listens
			case isLoginNeeded(err):
				all = append(all, topics(botKinds, name, ids[name])...)
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

func (s *Service) listen(ctx context.Context, a *coverage, account identity.UserID, topics func(context.Context) ([]eventsub.Topic, error)) {
	s.events.Listen(ctx, eventsub.Subscriber{
		Account: account, Topics: topics, IdleSince: a.since(gap.Events),
		OnNotification: func(n eventsub.Notification) {
			// Where Twitch has no id of what happened, two who listen would make two events of it: who has lost the lease
			// is silent. A whisper has one, and may be heard by nobody else.
			if n.Topic != whisperTopic && !a.lease.Valid() {
				s.metrics.received.WithLabelValues("fenced").Inc()
				return
			}
			s.queue.add(notificationEvent(n, s.bot))
		},
		OnGap: func(login string, from, to time.Time) {
			if login == "" {
				a.addGap(gap.Whispers, s.bot.String(), from, to)
				return
			}
			a.addGap(gap.Events, Channel(login), from, to)
		},
		OnIdle: func(since time.Time) { a.idle(gap.Events, since) },
	})
}

// notificationEvent makes an event of what EventSub told (https://dev.twitch.tv/docs/eventsub/eventsub-reference/). It is nil
// for what is no event: a gift, which the chat tells together with who gave it, what the bot did itself, and what is
// not as Twitch describes it.
//
// Its id follows from what happened where Twitch gives that an id or a time of its own, else from the notification's.
func notificationEvent(n eventsub.Notification, bot identity.UserID) *event.Event {
	if n.Topic.Kind == eventsub.Whisper {
		return whisperEvent(n, bot)
	}
	var told struct {
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
	if json.Unmarshal(n.Event, &told) != nil {
		return nil
	}
	t := n.Topic
	kind, id, at := "", n.ID, n.At
	payload := rawNotification{
		UserID: told.UserID, Username: told.UserLogin, DisplayName: told.UserName, RoomID: t.Broadcaster,
		Tier: told.Tier, Viewers: told.Viewers,
	}
	switch t.Kind {
	case eventsub.Follow:
		kind, id = TypeFollow, digest.Of("follow", t.Broadcaster, told.UserID, told.FollowedAt.UTC().Format(time.RFC3339Nano))
		at = told.FollowedAt
	case eventsub.Subscribe:
		if told.IsGift {
			return nil
		}
		kind = TypeSubscribed
	case eventsub.Raid:
		kind = TypeRaid
		payload.UserID, payload.Username, payload.DisplayName = told.FromID, told.FromLogin, told.FromName
	case eventsub.Online:
		kind, id = TypeStreamOnline, digest.Of("online", t.Broadcaster, cmp.Or(told.StreamID, n.ID))
		at = told.StartedAt
		payload.StreamID, payload.StreamType = told.StreamID, told.StreamType
		payload.UserID, payload.Username, payload.DisplayName = t.Broadcaster, t.Channel, told.BroadcasterName
	case eventsub.Offline:
		kind = TypeStreamOffline
		payload.UserID, payload.Username, payload.DisplayName = t.Broadcaster, t.Channel, told.BroadcasterName
	default:
		return nil
	}
	user, err := identity.New(identity.Twitch, payload.UserID)
	if err != nil || user == bot && payload.UserID != t.Broadcaster {
		return nil
	}
	if at.IsZero() {
		at = n.At
	}
	e := newEvent(kind, id, t.Channel)
	e.Source, e.UserID = SourceEventSub, user.String()
	e.ExternalEvent = &event.ExternalEvent{
		ID: n.ID, Source: string(identity.Twitch) + ".eventsub", Kind: kind[len(TypeNotice):], Version: t.Kind.Version,
		CreatedAt: at.UTC(), Payload: encode(payload), RawPayload: n.Event,
	}
	return e
}

// rawNotification is the payload of what EventSub told, with the names that the chat's notices have.
type rawNotification struct {
	UserID      string `json:"userId"` // who did it; of a stream, the broadcaster
	Username    string `json:"username,omitzero"`
	DisplayName string `json:"displayName,omitzero"`
	RoomID      string `json:"roomId"`
	Tier        string `json:"tier,omitzero"` // 1000, 2000 or 3000
	Viewers     int    `json:"viewers,omitzero"`
	StreamID    string `json:"streamId,omitzero"`
	StreamType  string `json:"streamType,omitzero"` // live, for example
}

// duplicates finds what both the chat and EventSub tell of: raids and new subscriptions. The two have no id in common. But
// whoever has a channel's lease hears both, and the times at which Twitch tells them lie close together: the second is
// the first told again.
type duplicates struct {
	mu    sync.Mutex
	first map[duplicateKey]firstReport
}

type duplicateKey struct{ kind, channel, user string }

type firstReport struct {
	source string
	at     time.Time // by Twitch's clock
}

const (
	// duplicateTime is how far apart the times may lie that Twitch gives to the two. Nobody raids the same channel twice, or
	// subscribes to it twice, within it.
	duplicateTime = 2 * time.Minute
	// maxDuplicates bounds what is remembered; only what one of the two does not tell stays for twinTime.
	maxDuplicates = 10_000
)

func newDuplicates() *duplicates { return &duplicates{first: map[duplicateKey]firstReport{}} }

// reportedTwice reports whether an event is of a kind of which both tell.
func reportedTwice(e *event.Event) bool { return e.Type == TypeRaid || e.Type == TypeSubscribed }

// seen reports whether the other one has told an event already.
func (t *duplicates) seen(e *event.Event) bool {
	if !reportedTwice(e) {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	key, now := duplicateKey{e.Type, e.Channel, e.UserID}, firstReport{e.Source, e.ExternalEvent.CreatedAt}
	before, ok := t.first[key]
	if ok && before.source != now.source && now.at.Sub(before.at).Abs() < duplicateTime {
		delete(t.first, key)
		return true
	}
	if len(t.first) >= maxDuplicates {
		for k, before := range t.first {
			if now.at.Sub(before.at) >= duplicateTime {
				delete(t.first, k)
			}
		}
	}
	if len(t.first) < maxDuplicates {
		t.first[key] = now
	}
	return false
}
