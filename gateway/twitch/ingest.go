package twitch

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	irc "github.com/gempir/go-twitch-irc/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley.internal/shared/chattext"
	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// sourceChat is the source of events from Twitch's chat and of whispers.
const sourceChat = "ingress.twitch"

// The types of events without a message. The type of a notice is typeNotice and Twitch's msg-id: "sub", "resub",
// "subgift", "raid" and more (https://dev.twitch.tv/docs/chat/irc/#usernotice).
const (
	typeNotice  = "twitch."
	typeCleared = "twitch.chat_cleared"    // a moderator cleared the chat
	typeTimeout = "twitch.user_timed_out"  // Twitch removed all the user's messages
	typeBan     = "twitch.user_banned"     // Twitch removed all the user's messages
	typeDeleted = "twitch.message_deleted" // Twitch removed one message
)

// channelName returns the channel of events and answers for a Twitch channel. The name has the platform as prefix, like a
// user id, so that channels of several platforms do not collide.
func channelName(login string) string { return string(identity.Twitch) + ":" + login }

// loginOf is the inverse of channelName.
func loginOf(channel string) (string, bool) {
	name, ok := strings.CutPrefix(channel, string(identity.Twitch)+":")
	return name, ok && loginSyntax.MatchString(name)
}

// rawMessage is the raw payload of a message: Twitch's tags, with the field names that the enrichment reads.
type rawMessage struct {
	UserID       string     `json:"userId"`
	Username     string     `json:"username"`
	DisplayName  string     `json:"displayName,omitzero"`
	Color        string     `json:"color,omitzero"`
	IsMod        bool       `json:"isMod"`
	IsSubscriber bool       `json:"isSubscriber"`
	Badges       string     `json:"badges"` // the tag, for example vip/1,subscriber/12
	Channel      string     `json:"channel"`
	RoomID       string     `json:"roomId"`
	ID           string     `json:"messageId"`
	SentAt       time.Time  `json:"sentAt,omitzero"`
	Bits         int        `json:"bits,omitzero"`
	IsAction     bool       `json:"isAction,omitzero"` // sent with /me
	IsFirst      bool       `json:"isFirst,omitzero"`  // the user's first message in the channel
	RewardID     string     `json:"customRewardId,omitzero"`
	Text         string     `json:"text,omitzero"` // with the mention that the event's text omits; empty for the same text
	ReplyParent  *rawParent `json:"replyParent,omitzero"`
}

type rawParent struct {
	ID          string `json:"messageId"`
	UserID      string `json:"userId,omitzero"`
	Username    string `json:"username,omitzero"`
	DisplayName string `json:"displayName,omitzero"`
	Text        string `json:"text,omitzero"`
}

// toEvent converts an IRC message. It returns nil for the bot's own messages, and for a shared chat's copies from another
// channel: the original channel has them, too (https://dev.twitch.tv/docs/chat/irc/#privmsg-tags).
func toEvent(m irc.Message, bot account) *event.Event {
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

// messageEvent converts a message. It returns nil for a text in which nothing is visible. A reply begins with a mention
// of the author of its parent (https://dev.twitch.tv/docs/chat/irc/#privmsg-tags, the tags reply-parent-*). The event's
// text is the reply without the mention, so that a command in a reply is a command.
func messageEvent(m *irc.PrivateMessage, bot account) *event.Event {
	user, err := identity.New(identity.Twitch, m.User.ID)
	if err != nil || user == bot.id || m.ID == "" || fromSharedChat(m.Tags) || chattext.Trim(m.Message) == "" {
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
	text := m.Message
	if m.Reply != nil && m.Reply.ParentMsgID != "" {
		e.ReplyTo = m.Reply.ParentMsgID
		if text = withoutParent(m.Message, m.Reply.ParentUserLogin, m.Reply.ParentDisplayName); text != m.Message {
			raw.Text = m.Message
		}
		raw.ReplyParent = &rawParent{m.Reply.ParentMsgID, m.Reply.ParentUserID, m.Reply.ParentUserLogin, m.Reply.ParentDisplayName, m.Reply.ParentMsgBody}
	}
	e.Message = &event.Message{ID: m.ID, Role: event.RoleUser, Text: text, MentionsBot: bot.addressedBy(m), RawPlatformPayload: encode(raw)}
	return e
}

// newEvent makes an event with an id of Twitch, in the channel of a login. Without a login, the event is between the bot
// and one user. The same id gives the same correlation id.
func newEvent(kind, id, login string) *event.Event {
	e := &event.Event{
		V: event.Version, Source: sourceChat, CorrelationID: string(identity.Twitch) + ":" + id, Type: kind,
		Auth:   &event.Auth{Provider: string(identity.Twitch)},
		Egress: &event.Egress{Destination: string(identity.Twitch), Type: event.EgressDM},
	}
	if login != "" {
		e.Channel, e.Egress.Type = channelName(login), event.EgressChat
	}
	return e
}

func noticeEvent(m *irc.UserNoticeMessage, bot account) *event.Event {
	user, err := identity.New(identity.Twitch, m.User.ID)
	if err != nil || user == bot.id || m.ID == "" || m.MsgID == "" || fromSharedChat(m.Tags) {
		return nil
	}
	e := newEvent(typeNotice+m.MsgID, m.ID, m.Channel)
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
		Text         string            `json:"text,omitzero"`    // the user's own message with the notice
		Tier         string            `json:"tier,omitzero"`    // of a subscription: Prime, 1000, 2000 or 3000
		Viewers      int               `json:"viewers,omitzero"` // of a raid
		Params       map[string]string `json:"params,omitzero"`
	}{m.User.ID, cmp.Or(m.Tags["login"], m.User.Name), m.User.DisplayName, m.User.IsMod, isSubscriber(m.Tags, m.User.Badges),
		m.Tags["badges"], m.RoomID, m.SystemMsg, m.Message, m.Tags["msg-param-sub-plan"], count(m.Tags["msg-param-viewerCount"]), noticeParams(m.Tags)})
	return e
}

// clearedEvent has no user: the affected user did nothing.
func clearedEvent(m *irc.ClearChatMessage) *event.Event {
	if fromSharedChat(m.Tags) {
		return nil
	}
	kind := typeCleared
	switch {
	case m.Tags["ban-duration"] != "":
		kind = typeTimeout
	case m.TargetUserID != "" || m.TargetUsername != "":
		kind = typeBan
	}
	id := digest.Of("clearchat", m.Channel, m.TargetUserID, m.Tags["ban-duration"], m.Tags["tmi-sent-ts"])
	e := newEvent(kind, id, m.Channel)
	setExternal(e, id, strings.TrimPrefix(kind, typeNotice), sentAt(m.Tags), m.Tags, struct {
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
	e := newEvent(typeDeleted, id, m.Channel)
	e.ReplyTo = m.TargetMsgID
	setExternal(e, id, strings.TrimPrefix(typeDeleted, typeNotice), sentAt(m.Tags), m.Tags, struct {
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

// fromSharedChat reports whether a shared chat copied the message from another channel.
func fromSharedChat(tags map[string]string) bool {
	source := tags["source-room-id"]
	return source != "" && source != tags["room-id"]
}

// isSubscriber reports whether the user subscribes. The tag omits founders, the first subscribers.
func isSubscriber(tags map[string]string, badges map[string]int) bool {
	_, founder := badges["founder"]
	_, subscriber := badges["subscriber"]
	return tags["subscriber"] == "1" || founder || subscriber
}

// count parses a non-negative number; 0 for everything else.
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

// sentAt returns the time of sending by Twitch's clock; zero if unknown.
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
		panic("twitch: " + err.Error()) // all types above can be encoded
	}
	return data
}
