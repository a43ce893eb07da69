package discord

import (
	"cmp"
	stdjson "encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bwmarrin/discordgo"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// Source is the source of every event from Discord.
const Source = "ingress.discord"

// The types of the events that are not somebody's message. What happens to a server rather than in a channel has the
// channel in which that server has Discord's own messages shown, where there is one. Of bans Discord tells only a bot
// that may ban, or see the audit log.
const (
	typePrefix   = "discord."
	TypeEdited   = "discord.message_edited"
	TypeDeleted  = "discord.message_deleted"
	TypeBanned   = "discord.user_banned"
	TypeUnbanned = "discord.user_unbanned"
	TypeJoined   = "discord.member_joined"
	TypeLeft     = "discord.member_left"
	TypeBoosted  = "discord.guild_boosted"
)

// Channel is the channel of events from, and answers to, the Discord channel, thread or direct conversation with this
// id. The platform stands in it, as it does in a user's id, so that rooms of several platforms can't be taken for one
// another.
func Channel(id string) string { return string(identity.Discord) + ":" + id }

// channelOf reads what Channel writes.
func channelOf(channel string) (id string, ok bool) {
	id, ok = strings.CutPrefix(channel, string(identity.Discord)+":")
	if ok {
		_, ok = parseSnowflake(id)
	}
	return id, ok
}

// message is what is read of a message (https://discord.com/developers/docs/resources/message#message-object). The
// library's own type fails on a message with a component that it does not know, also in the message that is replied to.
type message struct {
	ID          string                         `json:"id"`
	ChannelID   string                         `json:"channel_id"`
	GuildID     string                         `json:"guild_id"`
	Author      *discordgo.User                `json:"author"`
	Member      *member                        `json:"member"`
	Content     string                         `json:"content"`
	SentAt      time.Time                      `json:"timestamp"`
	EditedAt    *time.Time                     `json:"edited_timestamp"`
	Type        discordgo.MessageType          `json:"type"`
	WebhookID   string                         `json:"webhook_id"`
	Mentions    []*discordgo.User              `json:"mentions"`
	Roles       []string                       `json:"mention_roles"`
	Everyone    bool                           `json:"mention_everyone"`
	Attachments []*discordgo.MessageAttachment `json:"attachments"`
	Stickers    []*discordgo.StickerItem       `json:"sticker_items"`
	Reference   *discordgo.MessageReference    `json:"message_reference"`
	Parent      *message                       `json:"referenced_message"`
}

// member is who somebody is in a server. In a message it has no user of its own.
type member struct {
	Nick  string          `json:"nick"`
	Roles []string        `json:"roles"`
	User  *discordgo.User `json:"user"`
}

// The raw payload of a message: the platform's own words, with the names that the enrichment reads. A direct message
// tells nothing of roles.
type rawMessage struct {
	rawUser
	rawPlace
	ID               string          `json:"messageId"`
	SentAt           time.Time       `json:"sentAt,omitzero"`
	EditedAt         time.Time       `json:"editedAt,omitzero"`
	Mentions         []rawMention    `json:"mentions,omitzero"`
	MentionsBot      bool            `json:"mentionsBot"` // by name or by answering it
	MentionsRoles    []string        `json:"mentionsRoles,omitzero"`
	MentionsEveryone bool            `json:"mentionsEveryone,omitzero"`
	Attachments      []rawAttachment `json:"attachments,omitzero"`
	Stickers         []string        `json:"stickers,omitzero"`
	ReplyParent      *rawParent      `json:"replyParent,omitzero"`
}

type rawUser struct {
	UserID      string   `json:"userId"`
	Username    string   `json:"username,omitzero"`
	DisplayName string   `json:"displayName,omitzero"`
	Nick        string   `json:"nick,omitzero"` // in this server
	AvatarURL   string   `json:"avatarUrl,omitzero"`
	Roles       []string `json:"roles,omitzero"`     // their ids; empty is news
	RoleNames   []string `json:"roleNames,omitzero"` // likewise
	IsOwner     bool     `json:"isOwner,omitzero"`
}

type rawPlace struct {
	GuildID      string `json:"guildId,omitzero"`
	GuildName    string `json:"guildName,omitzero"`
	GuildOwnerID string `json:"guildOwnerId,omitzero"`
	ChannelID    string `json:"channelId,omitzero"`
	ChannelName  string `json:"channelName,omitzero"`
	IsThread     bool   `json:"isThread,omitzero"`
	ParentID     string `json:"parentId,omitzero"`
	ParentName   string `json:"parentName,omitzero"`
	IsDirect     bool   `json:"isDirect,omitzero"`
}

type rawMention struct {
	UserID      string `json:"userId"`
	Username    string `json:"username,omitzero"`
	DisplayName string `json:"displayName,omitzero"`
}

type rawAttachment struct {
	Name        string `json:"name"`
	URL         string `json:"url"`
	ContentType string `json:"contentType,omitzero"`
	Size        int    `json:"size,omitzero"` // bytes
}

type rawParent struct {
	ID          string `json:"messageId"`
	UserID      string `json:"userId,omitzero"`
	Username    string `json:"username,omitzero"`
	DisplayName string `json:"displayName,omitzero"`
	Text        string `json:"text,omitzero"`
}

// item is something that was heard in a channel.
type item struct {
	channel string       // Discord's id, or that of the server where there is none
	guild   string       // Discord's id; empty for a direct message
	mark    snowflake    // of the message, if it is a new one, also where it is no event
	event   *event.Event // nil if there is nothing to publish
}

// listener makes items of what Discord tells.
type listener struct {
	bot     string // Discord's id
	guilds  *guilds
	members bool // Discord tells who joins by itself
}

// of makes items of an event of the gateway. There is none in most kinds of them.
func (l listener) of(kind string, data []byte) ([]item, error) {
	switch kind {
	case "MESSAGE_CREATE", "MESSAGE_UPDATE":
		var m message
		if err := stdjson.Unmarshal(data, &m); err != nil {
			return nil, err
		}
		if kind == "MESSAGE_CREATE" {
			return []item{l.message(&m)}, nil
		}
		return l.edited(&m), nil
	case "MESSAGE_DELETE", "MESSAGE_DELETE_BULK":
		var d struct {
			ID        string   `json:"id"`
			IDs       []string `json:"ids"`
			ChannelID string   `json:"channel_id"`
			GuildID   string   `json:"guild_id"`
		}
		if err := stdjson.Unmarshal(data, &d); err != nil {
			return nil, err
		}
		if d.ID != "" {
			d.IDs = append(d.IDs, d.ID)
		}
		var all []item
		for _, id := range d.IDs {
			all = append(all, l.deleted(id, d.ChannelID, d.GuildID))
		}
		return all, nil
	case "GUILD_BAN_ADD", "GUILD_BAN_REMOVE", "GUILD_MEMBER_ADD", "GUILD_MEMBER_REMOVE":
		var p struct {
			member
			GuildID  string    `json:"guild_id"`
			JoinedAt time.Time `json:"joined_at"`
		}
		if err := stdjson.Unmarshal(data, &p); err != nil {
			return nil, err
		}
		return l.person(kind, p.GuildID, &p.member, p.JoinedAt), nil
	}
	return nil, nil
}

// message makes an item of a message. It is no event if the bot, another bot or a webhook said it, or Discord itself.
func (l listener) message(m *message) item {
	it := item{channel: m.ChannelID, guild: m.GuildID}
	it.mark, _ = parseSnowflake(m.ID)
	if !l.fromPerson(m) || it.mark == 0 {
		return it
	}
	switch m.Type {
	case discordgo.MessageTypeDefault, discordgo.MessageTypeReply:
	case discordgo.MessageTypeGuildMemberJoin:
		if !l.members {
			it.event = l.notice(TypeJoined, m)
		}
		return it
	case discordgo.MessageTypeUserPremiumGuildSubscription, discordgo.MessageTypeUserPremiumGuildSubscriptionTierOne,
		discordgo.MessageTypeUserPremiumGuildSubscriptionTierTwo, discordgo.MessageTypeUserPremiumGuildSubscriptionTierThree:
		it.event = l.notice(TypeBoosted, m)
		return it
	default:
		return it
	}
	if strings.TrimSpace(m.Content) == "" && len(m.Attachments) == 0 && len(m.Stickers) == 0 {
		return it
	}
	raw := l.raw(m)
	e := newEvent(event.TypeChatMessage, m.ID, m.ChannelID)
	e.UserID = string(identity.Discord) + ":" + m.Author.ID
	if raw.ReplyParent != nil {
		e.ReplyTo = raw.ReplyParent.ID
	}
	e.Message = &event.Message{ID: m.ID, Role: event.RoleUser, Text: m.Content, RawPlatformPayload: encode(raw)}
	it.event = e
	return it
}

// fromPerson reports whether somebody who is a person, and not the bot, said it.
func (l listener) fromPerson(m *message) bool {
	if m.Author == nil || m.Author.Bot || m.Author.System || m.WebhookID != "" || m.Author.ID == l.bot {
		return false
	}
	_, ok := parseSnowflake(m.Author.ID)
	_, in := parseSnowflake(m.ChannelID)
	return ok && in
}

func (l listener) raw(m *message) rawMessage {
	p := l.guilds.place(m.ChannelID, m.GuildID)
	raw := rawMessage{
		rawUser: l.user(m.Author, m.Member, p), rawPlace: rawOf(p, m.ChannelID), ID: m.ID, SentAt: m.SentAt.UTC(),
		MentionsRoles: m.Roles, MentionsEveryone: m.Everyone,
	}
	if len(m.Roles) == 0 {
		raw.MentionsRoles = nil
	}
	if m.EditedAt != nil {
		raw.EditedAt = m.EditedAt.UTC()
	}
	for _, u := range m.Mentions {
		raw.Mentions = append(raw.Mentions, rawMention{u.ID, u.Username, u.DisplayName()})
		raw.MentionsBot = raw.MentionsBot || u.ID == l.bot
	}
	for _, a := range m.Attachments {
		raw.Attachments = append(raw.Attachments, rawAttachment{a.Filename, a.URL, a.ContentType, a.Size})
	}
	for _, s := range m.Stickers {
		raw.Stickers = append(raw.Stickers, s.Name)
	}
	if m.Type == discordgo.MessageTypeReply && m.Reference != nil && m.Reference.MessageID != "" {
		raw.ReplyParent = &rawParent{ID: m.Reference.MessageID}
		if m.Parent != nil && m.Parent.Author != nil {
			a := m.Parent.Author
			raw.ReplyParent.UserID, raw.ReplyParent.Username, raw.ReplyParent.DisplayName = a.ID, a.Username, a.DisplayName()
			raw.ReplyParent.Text = m.Parent.Content
			raw.MentionsBot = raw.MentionsBot || a.ID == l.bot
		}
	}
	return raw
}

func rawOf(p place, channelID string) rawPlace {
	return rawPlace{
		GuildID: p.guildID, GuildName: p.guildName, GuildOwnerID: p.ownerID, ChannelID: channelID, ChannelName: p.name,
		IsThread: p.thread, ParentID: p.parent, ParentName: p.parentName, IsDirect: p.guildID == "" && channelID != "",
	}
}

// user tells of a person, and of their roles where they are known.
func (l listener) user(u *discordgo.User, m *member, p place) rawUser {
	raw := rawUser{UserID: u.ID, Username: u.Username, DisplayName: u.DisplayName()}
	if u.Avatar != "" {
		raw.AvatarURL = u.AvatarURL("")
	}
	if p.guildID == "" {
		return raw
	}
	raw.IsOwner = p.ownerID != "" && p.ownerID == u.ID
	if m == nil {
		return raw
	}
	raw.Nick = m.Nick
	raw.DisplayName = cmp.Or(m.Nick, raw.DisplayName)
	raw.Roles, raw.RoleNames = []string{}, []string{}
	for _, id := range m.Roles {
		raw.Roles = append(raw.Roles, id)
		if name := p.roles[id]; name != "" {
			raw.RoleNames = append(raw.RoleNames, name)
		}
	}
	slices.Sort(raw.RoleNames)
	return raw
}

// newEvent begins the event of what Discord knows by an id. The same thing seen twice is the same event.
func newEvent(kind, id, channelID string) *event.Event {
	e := &event.Event{
		V: event.Version, Source: Source, CorrelationID: string(identity.Discord) + ":" + id, Type: kind,
		Auth:   &event.Auth{Provider: string(identity.Discord)},
		Egress: &event.Egress{Destination: string(identity.Discord), Type: event.EgressChat},
	}
	if channelID != "" {
		e.Channel = Channel(channelID)
	}
	return e
}

// notice is a message of Discord's own about somebody.
func (l listener) notice(kind string, m *message) *event.Event {
	e := newEvent(kind, m.ID, m.ChannelID)
	e.UserID = string(identity.Discord) + ":" + m.Author.ID
	external(e, m.ID, m.SentAt, l.raw(m))
	return e
}

// edited is an event for each time that a person changed what they had said; Discord also tells of messages that only
// got a preview.
func (l listener) edited(m *message) []item {
	if !l.fromPerson(m) || m.EditedAt == nil {
		return nil
	}
	id := digest.Of("message_edited", m.ID, m.EditedAt.UTC().Format(time.RFC3339Nano))
	e := newEvent(TypeEdited, id, m.ChannelID)
	e.UserID = string(identity.Discord) + ":" + m.Author.ID
	e.ReplyTo = m.ID
	external(e, id, *m.EditedAt, struct {
		rawMessage
		Text string `json:"text"`
	}{l.raw(m), m.Content})
	return []item{{channel: m.ChannelID, guild: m.GuildID, event: e}}
}

// deleted is of nobody: Discord does not say who did it.
func (l listener) deleted(id, channelID, guildID string) item {
	key := digest.Of("message_deleted", id)
	e := newEvent(TypeDeleted, key, channelID)
	e.ReplyTo = id
	external(e, key, time.Time{}, struct {
		rawPlace
		ID string `json:"targetMessageId"`
	}{rawOf(l.guilds.place(channelID, guildID), channelID), id})
	return item{channel: channelID, guild: guildID, event: e}
}

// person makes an item of what happened to a member. A ban is of nobody: whom it befell did nothing.
func (l listener) person(kind, guildID string, m *member, joined time.Time) []item {
	if m.User == nil || m.User.ID == l.bot || m.User.Bot {
		return nil
	}
	p := l.guilds.place("", guildID)
	u := m.User
	name := map[string]string{"GUILD_BAN_ADD": TypeBanned, "GUILD_BAN_REMOVE": TypeUnbanned, "GUILD_MEMBER_ADD": TypeJoined, "GUILD_MEMBER_REMOVE": TypeLeft}[kind]
	// Discord gives bans and departures neither an id nor a time: that they were seen tells them apart.
	at := joined.UTC()
	if joined.IsZero() {
		at = event.TruncateToMicros(time.Now())
	}
	id := digest.Of(name, guildID, u.ID, at.Format(time.RFC3339Nano))
	e := newEvent(name, id, p.system)
	if kind == "GUILD_MEMBER_ADD" || kind == "GUILD_MEMBER_REMOVE" {
		e.UserID = string(identity.Discord) + ":" + u.ID
		who := m
		if kind == "GUILD_MEMBER_REMOVE" {
			who = nil
		}
		external(e, id, at, struct {
			rawUser
			rawPlace
		}{l.user(u, who, p), rawOf(p, p.system)})
	} else {
		external(e, id, at, struct {
			UserID   string `json:"targetUserId"`
			Username string `json:"targetUsername,omitzero"`
			rawPlace
		}{u.ID, u.Username, rawOf(p, p.system)})
	}
	return []item{{channel: cmp.Or(p.system, guildID), guild: guildID, event: e}}
}

func external(e *event.Event, id string, at time.Time, payload any) {
	if !at.IsZero() {
		at = at.UTC()
	}
	e.ExternalEvent = &event.ExternalEvent{
		ID: id, Source: string(identity.Discord), Kind: strings.TrimPrefix(e.Type, typePrefix), Version: "1",
		CreatedAt: at, Payload: encode(payload),
	}
}

func encode(v any) jsontext.Value {
	data, err := json.Marshal(v, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic(fmt.Sprintf("discord: %v", err)) // the types above can all be written
	}
	return data
}
