package discord

import (
	"time"

	"github.com/bwmarrin/discordgo"
)

// message is the used part of a message (https://discord.com/developers/docs/resources/message#message-object).
// discordgo's own type cannot decode a message, or a reply to a message, with a component unknown to discordgo.
type message struct {
	content
	ID        string                      `json:"id"`
	ChannelID string                      `json:"channel_id"`
	GuildID   string                      `json:"guild_id"`
	Author    *discordgo.User             `json:"author"`
	Member    *member                     `json:"member"`
	SentAt    time.Time                   `json:"timestamp"`
	EditedAt  *time.Time                  `json:"edited_timestamp"`
	Type      discordgo.MessageType       `json:"type"`
	WebhookID string                      `json:"webhook_id"`
	Roles     []string                    `json:"mention_roles"`
	Everyone  bool                        `json:"mention_everyone"`
	Reference *discordgo.MessageReference `json:"message_reference"`
	Parent    *message                    `json:"referenced_message"`
	Snapshots []snapshot                  `json:"message_snapshots"`
}

// isReply reports whether the message answers another message.
func (m *message) isReply() bool {
	return m.Type == discordgo.MessageTypeReply && m.Reference != nil && m.Reference.MessageID != ""
}

// content is what people see of a message.
type content struct {
	Content     string                         `json:"content"`
	Mentions    []mention                      `json:"mentions"`
	Attachments []*discordgo.MessageAttachment `json:"attachments"`
	Stickers    []*discordgo.StickerItem       `json:"sticker_items"`
	Poll        *poll                          `json:"poll"`
	Embeds      []embed                        `json:"embeds"`
}

// snapshot is a forwarded message (https://discord.com/developers/docs/resources/message#message-snapshot-object).
type snapshot struct {
	Message content `json:"message"`
}

// mention is a mentioned user. In a dispatch, a user of the guild has the membership.
type mention struct {
	discordgo.User
	Member *member `json:"member"`
}

// embed is the text of an embed (https://discord.com/developers/docs/resources/message#embed-object).
type embed struct {
	Title       string `json:"title"`
	Description string `json:"description"`
	URL         string `json:"url"`
}

// poll is the text of a poll (https://discord.com/developers/docs/resources/poll#poll-object).
type poll struct {
	Question pollMedia `json:"question"`
	Answers  []struct {
		Media pollMedia `json:"poll_media"`
	} `json:"answers"`
}

type pollMedia struct {
	Text  string `json:"text"`
	Emoji *struct {
		Name string `json:"name"`
	} `json:"emoji"`
}

// member is a user's membership in a guild. In a message, User is nil.
type member struct {
	Nick  string          `json:"nick"`
	Roles []string        `json:"roles"`
	User  *discordgo.User `json:"user"`
}

// rawMessage is the raw payload of a message event. The enrichment function reads these field names. A direct message
// has no roles.
type rawMessage struct {
	rawUser
	rawLocation
	ID               string          `json:"messageId"`
	SentAt           time.Time       `json:"sentAt,omitzero"`
	EditedAt         time.Time       `json:"editedAt,omitzero"`
	Mentions         []rawMention    `json:"mentions,omitzero"`
	MentionsBot      bool            `json:"mentionsBot"`      // as in the event's message
	Content          string          `json:"content,omitzero"` // with Discord's markup, if this differs from the event's text
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
	Nick        string   `json:"nick,omitzero"` // in this guild
	AvatarURL   string   `json:"avatarUrl,omitzero"`
	Roles       []string `json:"roles,omitzero"`     // ids; an empty list means no roles, an absent list means unknown
	RoleNames   []string `json:"roleNames,omitzero"` // sorted; empty and absent as for Roles
	IsOwner     bool     `json:"isOwner,omitzero"`
}

type rawLocation struct {
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
