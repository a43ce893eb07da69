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

	"parley.internal/shared/chattext"
	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// Source is the source of every event from Discord.
const Source = "ingress.discord"

// The types of events beside chat messages. An event of a guild without a channel gets the guild's system channel, if
// the guild has one. Discord sends bans only to a bot with the permission to ban or to view the audit log.
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

// Channel returns the channel of events and answers for a Discord channel, thread or direct conversation. id is
// Discord's id. The result starts with the platform, so that channels of different platforms have different names.
func Channel(id string) string { return string(identity.Discord) + ":" + id }

// channelOf returns Discord's id of a channel in the form of [Channel].
func channelOf(channel string) (id string, ok bool) {
	id, ok = strings.CutPrefix(channel, string(identity.Discord)+":")
	if ok {
		_, ok = parseSnowflake(id)
	}
	return id, ok
}

// item is a dispatch of one channel, converted to an event.
type item struct {
	channel   string       // Discord's id; the guild's id if there is no channel
	guild     string       // Discord's id; empty for a direct message
	messageID snowflake    // id of a new message, with or without event; otherwise zero
	event     *event.Event // nil if there is nothing to publish
}

// converter converts dispatches of Discord's gateway to items.
type converter struct {
	bot         string // user id of the bot
	botName     string // display name of the bot's account
	botUsername string
	guilds      *guilds
	members     bool // Discord sends member events, so join messages are ignored
}

// convert converts one dispatch. Most types of dispatches give no item.
func (c converter) convert(kind string, data []byte) ([]item, error) {
	switch kind {
	case "MESSAGE_CREATE", "MESSAGE_UPDATE":
		var m message
		if err := stdjson.Unmarshal(data, &m); err != nil {
			return nil, err
		}
		if kind == "MESSAGE_CREATE" {
			return []item{c.message(&m)}, nil
		}
		return c.edited(&m), nil
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
			all = append(all, c.deleted(id, d.ChannelID, d.GuildID))
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
		return c.person(kind, p.GuildID, &p.member, p.JoinedAt), nil
	}
	return nil, nil
}

// message converts a message. Messages of bots, webhooks and Discord, and messages in which nothing is visible, give an
// item without event.
func (c converter) message(m *message) item {
	it := item{channel: m.ChannelID, guild: m.GuildID}
	it.messageID, _ = parseSnowflake(m.ID)
	if !c.fromPerson(m) || it.messageID == 0 {
		return it
	}
	switch m.Type {
	case discordgo.MessageTypeDefault, discordgo.MessageTypeReply:
	case discordgo.MessageTypeGuildMemberJoin:
		if !c.members {
			it.event = c.notice(TypeJoined, m)
		}
		return it
	case discordgo.MessageTypeUserPremiumGuildSubscription, discordgo.MessageTypeUserPremiumGuildSubscriptionTierOne,
		discordgo.MessageTypeUserPremiumGuildSubscriptionTierTwo, discordgo.MessageTypeUserPremiumGuildSubscriptionTierThree:
		it.event = c.notice(TypeBoosted, m)
		return it
	default:
		return it
	}
	raw, text := c.raw(m)
	if chattext.Trim(text) == "" {
		return it
	}
	e := newEvent(event.TypeChatMessage, m.ID, m.ChannelID)
	e.UserID = string(identity.Discord) + ":" + m.Author.ID
	if raw.ReplyParent != nil {
		e.ReplyTo = raw.ReplyParent.ID
	}
	e.Message = &event.Message{
		ID: m.ID, Role: event.RoleUser, Text: text, MentionsBot: raw.MentionsBot, RawPlatformPayload: encode(raw),
	}
	it.event = e
	return it
}

// fromPerson reports whether a person is the author of a message, not a bot, a webhook or Discord.
func (c converter) fromPerson(m *message) bool {
	if m.Author == nil || m.Author.Bot || m.Author.System || m.WebhookID != "" || m.Author.ID == c.bot {
		return false
	}
	_, ok := parseSnowflake(m.Author.ID)
	_, in := parseSnowflake(m.ChannelID)
	return ok && in
}

// raw makes the payload and the text of a message.
func (c converter) raw(m *message) (raw rawMessage, text string) {
	p := c.guilds.locate(m.ChannelID, m.GuildID)
	raw = rawMessage{
		rawUser: c.user(m.Author, m.Member, p), rawLocation: newRawLocation(p, m.ChannelID), ID: m.ID, SentAt: m.SentAt.UTC(),
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
	}
	for _, a := range m.Attachments {
		raw.Attachments = append(raw.Attachments, rawAttachment{a.Filename, a.URL, a.ContentType, a.Size})
	}
	for _, s := range m.Stickers {
		raw.Stickers = append(raw.Stickers, s.Name)
	}
	if m.isReply() {
		raw.ReplyParent = &rawParent{ID: m.Reference.MessageID}
		if m.Parent != nil && m.Parent.Author != nil {
			a := m.Parent.Author
			raw.ReplyParent.UserID, raw.ReplyParent.Username, raw.ReplyParent.DisplayName = a.ID, a.Username, a.DisplayName()
			raw.ReplyParent.Text, _ = c.textOf(m.Parent, p)
		}
	}
	text, raw.MentionsBot = c.textOf(m, p)
	raw.MentionsBot = raw.MentionsBot || c.repliesToBot(m)
	if m.Content != text {
		raw.Content = m.Content
	}
	return raw, text
}

func newRawLocation(p location, channelID string) rawLocation {
	return rawLocation{
		GuildID: p.guildID, GuildName: p.guildName, GuildOwnerID: p.ownerID, ChannelID: channelID, ChannelName: p.name,
		IsThread: p.thread, ParentID: p.parent, ParentName: p.parentName, IsDirect: p.guildID == "" && channelID != "",
	}
}

// user makes the payload of a user. Without m, or outside a guild, the payload has no roles.
func (c converter) user(u *discordgo.User, m *member, p location) rawUser {
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
		if name := p.roles[id].Name; name != "" {
			raw.RoleNames = append(raw.RoleNames, name)
		}
	}
	slices.Sort(raw.RoleNames)
	return raw
}

// newEvent makes an event. id is Discord's id or a hash; the same id always gives the same correlation id.
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

// notice makes the event of a system message about a user.
func (c converter) notice(kind string, m *message) *event.Event {
	e := newEvent(kind, m.ID, m.ChannelID)
	e.UserID = string(identity.Discord) + ":" + m.Author.ID
	raw, _ := c.raw(m)
	external(e, m.ID, m.SentAt, raw)
	return e
}

// edited converts a message update. Updates without an edit time, such as added link previews, give no item.
func (c converter) edited(m *message) []item {
	if !c.fromPerson(m) || m.EditedAt == nil {
		return nil
	}
	id := digest.Of("message_edited", m.ID, m.EditedAt.UTC().Format(time.RFC3339Nano))
	e := newEvent(TypeEdited, id, m.ChannelID)
	e.UserID = string(identity.Discord) + ":" + m.Author.ID
	e.ReplyTo = m.ID
	raw, text := c.raw(m)
	external(e, id, *m.EditedAt, struct {
		rawMessage
		Text string `json:"text"`
	}{raw, text})
	return []item{{channel: m.ChannelID, guild: m.GuildID, event: e}}
}

// deleted converts the deletion of one message. The event has no user, because Discord does not report who deleted it.
func (c converter) deleted(id, channelID, guildID string) item {
	key := digest.Of("message_deleted", id)
	e := newEvent(TypeDeleted, key, channelID)
	e.ReplyTo = id
	external(e, key, time.Time{}, struct {
		rawLocation
		ID string `json:"targetMessageId"`
	}{newRawLocation(c.guilds.locate(channelID, guildID), channelID), id})
	return item{channel: channelID, guild: guildID, event: e}
}

// person converts a member event. A ban or unban has no user id, because the target is not the actor.
func (c converter) person(kind, guildID string, m *member, joined time.Time) []item {
	if m.User == nil || m.User.ID == c.bot || m.User.Bot {
		return nil
	}
	p := c.guilds.locate("", guildID)
	u := m.User
	name := map[string]string{"GUILD_BAN_ADD": TypeBanned, "GUILD_BAN_REMOVE": TypeUnbanned, "GUILD_MEMBER_ADD": TypeJoined, "GUILD_MEMBER_REMOVE": TypeLeft}[kind]
	// Discord gives bans and departures neither an id nor a time, so the time of receipt makes the event unique.
	at := joined.UTC()
	if joined.IsZero() {
		at = event.TruncateToMicros(time.Now())
	}
	id := digest.Of(name, guildID, u.ID, at.Format(time.RFC3339Nano))
	e := newEvent(name, id, p.system)
	if kind == "GUILD_MEMBER_ADD" || kind == "GUILD_MEMBER_REMOVE" {
		e.UserID = string(identity.Discord) + ":" + u.ID
		membership := m
		if kind == "GUILD_MEMBER_REMOVE" {
			membership = nil
		}
		external(e, id, at, struct {
			rawUser
			rawLocation
		}{c.user(u, membership, p), newRawLocation(p, p.system)})
	} else {
		external(e, id, at, struct {
			UserID   string `json:"targetUserId"`
			Username string `json:"targetUsername,omitzero"`
			rawLocation
		}{u.ID, u.Username, newRawLocation(p, p.system)})
	}
	return []item{{channel: cmp.Or(p.system, guildID), guild: guildID, event: e}}
}

// external sets the external event of e. payload is encoded as JSON.
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
		panic(fmt.Sprintf("discord: %v", err)) // every payload type can be encoded
	}
	return data
}
