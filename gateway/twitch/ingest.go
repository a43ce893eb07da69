package twitch

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"strconv"
	"strings"
	"sync"
	"time"

	irc "github.com/gempir/go-twitch-irc/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley.internal/shared/bus"
	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/telemetry"
	"parley.internal/shared/topology"
)

// Source is the source of every event from Twitch's chat.
const Source = "ingress.twitch"

// The types of the events that are not somebody's message. A notice's type is TypeNotice and Twitch's msg-id: "sub",
// "resub", "subgift", "raid" and others (https://dev.twitch.tv/docs/chat/irc/#usernotice).
const (
	TypeNotice  = "twitch."
	TypeCleared = "twitch.chat_cleared"    // a moderator cleared the chat
	TypeTimeout = "twitch.user_timed_out"  // and all that the user said is gone
	TypeBan     = "twitch.user_banned"     // likewise
	TypeDeleted = "twitch.message_deleted" // one message is gone
)

// Channel is the channel of events from, and answers to, the Twitch channel of this name. The platform stands in it,
// as it does in a user's id, so that rooms of several platforms can't be taken for one another.
func Channel(login string) string { return string(identity.Twitch) + ":" + login }

// loginOf reads what Channel writes.
func loginOf(channel string) (string, bool) {
	name, ok := strings.CutPrefix(channel, string(identity.Twitch)+":")
	return name, ok && loginSyntax.MatchString(name)
}

// The raw payload of a message: the platform's own words, with the names that the enrichment reads.
type rawMessage struct {
	UserID       string     `json:"userId"`
	Username     string     `json:"username"`
	DisplayName  string     `json:"displayName,omitzero"`
	Color        string     `json:"color,omitzero"`
	IsMod        bool       `json:"isMod"`
	IsSubscriber bool       `json:"isSubscriber"`
	Badges       string     `json:"badges"` // as the tag has them: vip/1,subscriber/12
	Channel      string     `json:"channel"`
	RoomID       string     `json:"roomId"`
	ID           string     `json:"messageId"`
	SentAt       time.Time  `json:"sentAt,omitzero"`
	Bits         int        `json:"bits,omitzero"`
	IsAction     bool       `json:"isAction,omitzero"` // said with /me
	IsFirst      bool       `json:"isFirst,omitzero"`  // the user's first message in the channel
	RewardID     string     `json:"customRewardId,omitzero"`
	ReplyParent  *rawParent `json:"replyParent,omitzero"`
}

type rawParent struct {
	ID          string `json:"messageId"`
	UserID      string `json:"userId,omitzero"`
	Username    string `json:"username,omitzero"`
	DisplayName string `json:"displayName,omitzero"`
	Text        string `json:"text,omitzero"`
}

// toEvent makes an event of what was heard. It is nil for what is no event: the bot's own messages, and those that a
// shared chat repeats from another channel, where they are heard as well
// (https://dev.twitch.tv/docs/chat/irc/#privmsg-tags).
func toEvent(m irc.Message, bot identity.UserID) *event.Event {
	switch m := m.(type) {
	case *irc.PrivateMessage:
		return messageEvent(m, bot)
	case *irc.UserNoticeMessage:
		return noticeEvent(m, bot)
	case *irc.ClearChatMessage:
		return clearedEvent(m)
	case *irc.ClearMessage:
		return deletedEvent(m)
	}
	return nil
}

func messageEvent(m *irc.PrivateMessage, bot identity.UserID) *event.Event {
	user, err := identity.New(identity.Twitch, m.User.ID)
	if err != nil || user == bot || m.ID == "" || fromSharedChat(m.Tags) || strings.TrimSpace(m.Message) == "" {
		return nil
	}
	raw := rawMessage{
		UserID: m.User.ID, Username: m.User.Name, DisplayName: m.User.DisplayName, Color: m.User.Color,
		IsMod: m.User.IsMod, IsSubscriber: isSubscriber(m.Tags, m.User.Badges), Badges: m.Tags["badges"],
		Channel: m.Channel, RoomID: m.RoomID, ID: m.ID, SentAt: sentAt(m.Tags), Bits: m.Bits, IsAction: m.Action,
		IsFirst: m.FirstMessage, RewardID: m.CustomRewardID,
	}
	e := newEvent(event.TypeChatMessage, m.ID, m.Channel)
	e.UserID = user.String()
	if m.Reply != nil && m.Reply.ParentMsgID != "" {
		e.ReplyTo = m.Reply.ParentMsgID
		raw.ReplyParent = &rawParent{m.Reply.ParentMsgID, m.Reply.ParentUserID, m.Reply.ParentUserLogin, m.Reply.ParentDisplayName, m.Reply.ParentMsgBody}
	}
	e.Message = &event.Message{ID: m.ID, Role: event.RoleUser, Text: m.Message, RawPlatformPayload: encode(raw)}
	return e
}

// newEvent begins the event of what Twitch knows by an id, in the channel of a login; without one it is between the bot
// and one person. The same thing seen twice is the same event.
func newEvent(kind, id, login string) *event.Event {
	e := &event.Event{
		V: event.Version, Source: Source, CorrelationID: string(identity.Twitch) + ":" + id, Type: kind,
		Auth:   &event.Auth{Provider: string(identity.Twitch)},
		Egress: &event.Egress{Destination: string(identity.Twitch), Type: event.EgressDM},
	}
	if login != "" {
		e.Channel, e.Egress.Type = Channel(login), event.EgressChat
	}
	return e
}

func noticeEvent(m *irc.UserNoticeMessage, bot identity.UserID) *event.Event {
	user, err := identity.New(identity.Twitch, m.User.ID)
	if err != nil || user == bot || m.ID == "" || m.MsgID == "" || fromSharedChat(m.Tags) {
		return nil
	}
	e := newEvent(TypeNotice+m.MsgID, m.ID, m.Channel)
	e.UserID = user.String()
	setExternal(e, m.ID, m.MsgID, sentAt(m.Tags), m.Tags, struct {
		UserID       string            `json:"userId"`
		Username     string            `json:"username,omitzero"`
		DisplayName  string            `json:"displayName,omitzero"`
		IsMod        bool              `json:"isMod"`
		IsSubscriber bool              `json:"isSubscriber"`
		Badges       string            `json:"badges"`
		RoomID       string            `json:"roomId,omitzero"`
		System       string            `json:"systemMessage,omitzero"`
		Text         string            `json:"text,omitzero"`    // what the user added to it
		Tier         string            `json:"tier,omitzero"`    // of a subscription: Prime, 1000, 2000 or 3000
		Viewers      int               `json:"viewers,omitzero"` // that a raid brings
		Params       map[string]string `json:"params,omitzero"`
	}{m.User.ID, cmp.Or(m.Tags["login"], m.User.Name), m.User.DisplayName, m.User.IsMod, isSubscriber(m.Tags, m.User.Badges),
		m.Tags["badges"], m.RoomID, m.SystemMsg, m.Message, m.Tags["msg-param-sub-plan"], count(m.Tags["msg-param-viewerCount"]), noticeParams(m.Tags)})
	return e
}

// clearedEvent is of nobody: whom it befell did nothing.
func clearedEvent(m *irc.ClearChatMessage) *event.Event {
	if fromSharedChat(m.Tags) {
		return nil
	}
	kind := TypeCleared
	switch {
	case m.Tags["ban-duration"] != "":
		kind = TypeTimeout
	case m.TargetUserID != "" || m.TargetUsername != "":
		kind = TypeBan
	}
	id := digest.Of("clearchat", m.Channel, m.TargetUserID, m.Tags["ban-duration"], m.Tags["tmi-sent-ts"])
	e := newEvent(kind, id, m.Channel)
	setExternal(e, id, strings.TrimPrefix(kind, TypeNotice), sentAt(m.Tags), m.Tags, struct {
		TargetUserID   string `json:"targetUserId,omitzero"`
		TargetUsername string `json:"targetUsername,omitzero"`
		Seconds        int    `json:"seconds,omitzero"`
		RoomID         string `json:"roomId,omitzero"`
	}{m.TargetUserID, m.TargetUsername, m.BanDuration, m.RoomID})
	return e
}

func deletedEvent(m *irc.ClearMessage) *event.Event {
	if m.TargetMsgID == "" || fromSharedChat(m.Tags) {
		return nil
	}
	id := digest.Of("clearmsg", m.TargetMsgID)
	e := newEvent(TypeDeleted, id, m.Channel)
	e.ReplyTo = m.TargetMsgID
	setExternal(e, id, strings.TrimPrefix(TypeDeleted, TypeNotice), sentAt(m.Tags), m.Tags, struct {
		TargetMessageID string `json:"targetMessageId"`
		TargetUsername  string `json:"targetUsername,omitzero"`
		Text            string `json:"text,omitzero"`
		RoomID          string `json:"roomId,omitzero"`
	}{m.TargetMsgID, m.Login, m.Message, m.Tags["room-id"]})
	return e
}

func setExternal(e *event.Event, id, kind string, at time.Time, tags map[string]string, payload any) {
	e.ExternalEvent = &event.ExternalEvent{
		ID: id, Source: string(identity.Twitch), Kind: kind, Version: "1", CreatedAt: at,
		Payload: encode(payload), RawPayload: encode(tags),
	}
}

// fromSharedChat tells what a shared chat brought from another channel.
func fromSharedChat(tags map[string]string) bool {
	source := tags["source-room-id"]
	return source != "" && source != tags["room-id"]
}

// isSubscriber also counts those who were the first to subscribe, whom the tag leaves out.
func isSubscriber(tags map[string]string, badges map[string]int) bool {
	_, founder := badges["founder"]
	_, subscriber := badges["subscriber"]
	return tags["subscriber"] == "1" || founder || subscriber
}

// count reads a number of something; 0 if it is none.
func count(tag string) int {
	n, err := strconv.Atoi(tag)
	if err != nil {
		return 0
	}
	return max(n, 0)
}

func noticeParams(tags map[string]string) map[string]string {
	all := map[string]string{}
	for name, value := range tags {
		if name, ok := strings.CutPrefix(name, "msg-param-"); ok {
			all[name] = value
		}
	}
	return all
}

// sentAt is when Twitch says that it was sent; zero if it does not.
func sentAt(tags map[string]string) time.Time {
	ms, err := strconv.ParseInt(tags["tmi-sent-ts"], 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func encode(v any) jsontext.Value {
	data, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		panic("twitch: " + err.Error()) // the types above can all be written
	}
	return data
}

// Publisher is what is needed of the bus.
type Publisher interface {
	Publish(ctx context.Context, t topology.Topic, out bus.Outgoing) error
}

const (
	// queueCount is how many events are published at a time; those of one user in one channel take the same lane.
	queueCount = 32
	// queueSize is how many events may wait in each. When one is full, nothing more is read from Twitch, which then ends
	// the connection; what is missed so shows as a gap.
	queueSize = 64
)

// ingestQueue publishes what was heard, in order for each user in each channel.
type ingestQueue struct {
	service    *Service
	duplicates *duplicates
	queues     [queueCount]chan *event.Event
	stopped    context.Context // what is still waiting then is given up
	wg         sync.WaitGroup
}

func newIngestQueue(ctx context.Context, s *Service) *ingestQueue {
	in := &ingestQueue{service: s, duplicates: newDuplicates(), stopped: ctx}
	for i := range in.queues {
		in.queues[i] = make(chan *event.Event, queueSize)
		in.wg.Go(func() { // ends with close
			for e := range in.queues[i] {
				in.publish(e)
			}
		})
	}
	return in
}

// add puts an event into its lane, and waits for room there. It may be nil, for something that is none.
func (in *ingestQueue) add(e *event.Event) {
	if e == nil {
		in.service.metrics.received.WithLabelValues("ignored").Inc()
		return
	}
	if in.duplicates.seen(e) {
		in.service.metrics.received.WithLabelValues("repeated").Inc()
		return
	}
	h := fnv.New32a()
	h.Write([]byte(e.OrderingKey())) // never fails
	select {
	case in.queues[h.Sum32()%queueCount] <- e:
	case <-in.stopped.Done():
		in.service.metrics.received.WithLabelValues("lost").Inc()
	}
}

// publish tries until it succeeds or the instance ends: what Twitch says, it says once.
func (in *ingestQueue) publish(e *event.Event) {
	s := in.service
	ctx, traceID := telemetry.StartTrace(in.stopped)
	e.TraceID = traceID
	if e.Egress.Type == event.EgressDM {
		in.recordWriter(ctx, e)
	}
	for {
		err := s.publisher.Publish(ctx, topology.Ingress, bus.Outgoing{Event: e})
		switch {
		case err == nil:
			s.metrics.received.WithLabelValues("published").Inc()
			return
		case errors.Is(err, event.ErrInvalid):
			s.metrics.received.WithLabelValues("invalid").Inc()
			s.log.ErrorContext(ctx, "what Twitch said can't be an event", "error", err, "correlationId", e.CorrelationID)
			return
		case ctx.Err() != nil:
			s.metrics.received.WithLabelValues("lost").Inc()
			s.log.ErrorContext(ctx, "not published before the end", "error", err, "correlationId", e.CorrelationID)
			return
		}
		s.log.WarnContext(ctx, "can't publish what Twitch said; trying again", "error", err, "correlationId", e.CorrelationID)
		select {
		case <-ctx.Done():
		case <-time.After(s.timing.minBackoff):
		}
	}
}

// close publishes what is left. Nothing may be taken any more.
func (in *ingestQueue) close() {
	for _, l := range in.queues {
		close(l)
	}
	in.wg.Wait()
}
