package discord

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Messages and mentions: https://discord.com/developers/docs/resources/message

// Message is a message in a channel.
type Message struct {
	ID        string
	ChannelID string
	GuildID   string // empty in direct messages
	// Author is the author at the time of the message.
	Author User
	Text   string
	// ReplyTo is the id of the answered message, or empty.
	ReplyTo string
	// Nonce is the nonce of a bot's message.
	Nonce string
	// Mentions, MentionRoles and MentionEveryone hold the effective mentions: users and roles by id, and @everyone or
	// @here. Mentions blocked by allowed_mentions or by a missing permission stand only in the text.
	Mentions, MentionRoles []string
	MentionEveryone        bool
	// Attachments, Stickers, Embeds and Poll stand beside the text.
	Attachments []Attachment
	Stickers    []Sticker
	Embeds      []Embed
	Poll        *Poll
	// Pings are the sorted ids of all notified users: mentioned users, members of mentioned roles, for @everyone all
	// users who can see the channel, and the author of a message answered with a ping. The author of the message is
	// never pinged.
	Pings []string
	// Via is the transport: ViaAPI or ViaSay.
	Via string
	At  time.Time
	// EditedAt is zero for an unedited message.
	EditedAt time.Time
	// Deleted is set after the deletion.
	Deleted bool
}

// Values of Message.Via.
const (
	ViaAPI = "api"
	ViaSay = "say" // the Say and SayDM methods
)

// message is a Message with its channel.
type message struct {
	Message
	channel *channel
	author  *account
	parent  *message
	forward *message // the forwarded message, or nil
	fields  map[string]any
}

// nonceEntry is the message of a nonce.
type nonceEntry struct {
	message *message
	at      time.Time
}

// maxText is the largest number of characters in a message.
const maxText = 2000

// SayOption is an option of Say and SayDM.
type SayOption func(*post)

// ReplyingTo makes the message an answer to the message with this id, with a ping.
func ReplyingTo(id string) SayOption { return func(p *post) { p.parent = id } }

// WithoutPing suppresses the ping of an answer.
func WithoutPing() SayOption { return func(p *post) { p.quiet = true } }

// AsTyped applies time-outs and permissions, as for a person who types into the channel. Direct messages need a guild of
// both users. A refusal becomes an error.
func AsTyped() SayOption { return func(p *post) { p.typed = true } }

// post is a message before publication.
type post struct {
	channel *channel
	from    *account
	text    string
	parent  string // id of the answered message
	quiet   bool   // no ping for the answered author
	allowed *allowedMentions
	nonce   string
	via     string
	typed   bool

	attachments []Attachment
	stickers    []Sticker
	embeds      []Embed
	fields      map[string]any
	poll        *Poll
	forwarded   [2]string // ids of the channel and the message
	forward     *message  // as found by say
}

// Say posts a message as a user in a guild's channel. Bots with access to the channel get an event. Limits and
// permissions do not apply, unless AsTyped is given.
func (s *Server) Say(channelID, userID, text string, opts ...SayOption) (Message, error) {
	s.lock()
	defer s.unlock()
	c, err := s.channel(channelID)
	if err != nil {
		return Message{}, err
	}
	return s.say(c, userID, text, opts)
}

func (s *Server) say(c *channel, userID, text string, opts []SayOption) (Message, error) {
	u, err := s.account(userID)
	if err != nil {
		return Message{}, err
	}
	if c.guild != nil && c.guild.members[u.ID] == nil {
		return Message{}, fmt.Errorf("discord: %s is not a member of guild %s", u.Name, c.GuildID)
	}
	if c.guild == nil && !slices.Contains(c.users, u) {
		return Message{}, fmt.Errorf("discord: %s is not in channel %s", u.Name, c.ID)
	}
	if !c.hasMessages() {
		return Message{}, fmt.Errorf("discord: channel %s is not for text", c.Name)
	}
	p := post{channel: c, from: u, text: text, via: ViaSay}
	for _, o := range opts {
		o(&p)
	}
	if p.parent != "" && c.byID[p.parent] == nil {
		return Message{}, fmt.Errorf("discord: there is no message %q to answer in channel %s", p.parent, c.ID)
	}
	if p.forward, err = s.forward(p); err != nil {
		return Message{}, err
	}
	if p.typed && c.guild == nil && !s.shareGuild(c.users[0], c.users[1]) {
		return Message{}, fmt.Errorf("discord: %s shares no guild with %s", c.users[0].Name, c.users[1].Name)
	}
	if p.typed && !s.hasPermission(c, u, ViewChannel|SendMessages) {
		if m := c.guild.members[u.ID]; s.now().Before(m.until) {
			return Message{}, fmt.Errorf("discord: %s is timed out until %s", u.Name, m.until.UTC().Format(time.RFC3339))
		}
		return Message{}, fmt.Errorf("discord: %s may not send messages in channel %s", u.Name, c.Name)
	}
	return s.publish(p).Message, nil
}

// DM returns the direct message channel of a user and a bot, and opens the channel if needed.
func (s *Server) DM(userID, botID string) (Channel, error) {
	s.lock()
	defer s.unlock()
	c, err := s.dm(userID, botID)
	if err != nil {
		return Channel{}, err
	}
	return c.Channel, nil
}

// SayDM sends a direct message from a user to a bot, or from a bot to a user.
func (s *Server) SayDM(fromID, toID, text string, opts ...SayOption) (Message, error) {
	s.lock()
	defer s.unlock()
	c, err := s.dm(fromID, toID)
	if err != nil {
		return Message{}, err
	}
	return s.say(c, fromID, text, opts)
}

// DMs returns all direct messages between a user and a bot, in order.
func (s *Server) DMs(userID, botID string) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.dms[pairKey(userID, botID)]; c != nil {
		return c.said(0)
	}
	return nil
}

func pairKey(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

func (s *Server) dm(aID, bID string) (*channel, error) {
	a, err := s.account(aID)
	if err != nil {
		return nil, err
	}
	b, err := s.account(bID)
	if err != nil {
		return nil, err
	}
	if a == b || a.Bot == b.Bot {
		return nil, fmt.Errorf("discord: direct messages here are between a user and a bot, not %s and %s", a.Name, b.Name)
	}
	key := pairKey(a.ID, b.ID)
	c := s.dms[key]
	if c == nil {
		c = &channel{
			Channel: Channel{ID: s.newID(), Type: DMChannel, UserIDs: key[:]},
			users:   []*account{a, b},
			byID:    map[string]*message{},
		}
		s.dms[key], s.channels[c.ID] = c, c
	}
	return c, nil
}

// Said returns all messages of the channel in order, deleted messages included.
func (s *Server) Said(channelID string) []Message { return s.SaidFrom(channelID, 0) }

// SaidFrom returns the messages of the channel after the first n.
func (s *Server) SaidFrom(channelID string, n int) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.channels[channelID]; c != nil {
		return c.said(n)
	}
	return nil
}

func (c *channel) said(n int) []Message {
	if n >= len(c.messages) {
		return nil
	}
	all := make([]Message, 0, len(c.messages)-n)
	for _, m := range c.messages[n:] {
		all = append(all, m.Message)
	}
	return all
}

func (c *channel) hasMessages() bool {
	return c.Type == TextChannel || c.Type == AnnouncementChannel || c.Type == DMChannel
}

// publish stores a message and sends an event to the bots with access to the channel.
func (s *Server) publish(p post) *message {
	c := p.channel
	m := &message{
		Message: Message{
			ID:        s.newID(),
			ChannelID: c.ID,
			GuildID:   c.GuildID,
			Author:    p.from.User,
			Text:      p.text,
			ReplyTo:   p.parent,
			Nonce:     p.nonce,
			Via:       p.via,
			At:        s.now(),
		},
		channel: c,
		author:  p.from,
		parent:  c.byID[p.parent],
		forward: p.forward,
	}
	s.attach(m, p)
	s.mention(m, p.allowed, p.quiet)
	c.messages = append(c.messages, m)
	c.byID[m.ID] = m
	s.dispatchMessage("MESSAGE_CREATE", m)
	return m
}

func (s *Server) dispatchMessage(kind string, m *message) {
	c := m.channel
	s.dispatch(kind, func(ss *session) any {
		if !s.receivesMessages(ss, c) {
			return nil
		}
		j := s.messageJSON(m, ss.bot, ss.intents&IntentMessageContent != 0)
		j["channel_type"] = c.Type
		if c.guild == nil {
			return j
		}
		j["guild_id"] = c.GuildID
		if member := c.guild.members[m.author.ID]; member != nil {
			j["member"] = member.partial()
		}
		return j
	})
}

// receivesMessages reports whether the session gets the messages of a channel.
func (s *Server) receivesMessages(ss *session, c *channel) bool {
	if c.guild == nil {
		return ss.intents&IntentDirectMessages != 0 && ss.shard[0] == 0 && slices.Contains(c.users, ss.bot)
	}
	return ss.has(IntentGuildMessages, c.guild) && s.hasPermission(c, ss.bot, ViewChannel)
}

// Edit changes the text of a message by any author.
func (s *Server) Edit(channelID, messageID, text string) (Message, error) {
	s.lock()
	defer s.unlock()
	m, err := s.message(channelID, messageID)
	if err != nil {
		return Message{}, err
	}
	s.edit(m, text, nil)
	return m.Message, nil
}

func (s *Server) edit(m *message, text string, a *allowedMentions) {
	m.Text, m.EditedAt = text, s.now()
	// An edit causes no further pings.
	pings := m.Pings
	s.mention(m, a, false)
	m.Pings = pings
	s.dispatchMessage("MESSAGE_UPDATE", m)
}

// Delete deletes messages of a channel; several messages are one bulk deletion.
func (s *Server) Delete(channelID string, messageIDs ...string) error {
	s.lock()
	defer s.unlock()
	var gone []*message
	for _, id := range messageIDs {
		m, err := s.message(channelID, id)
		if err != nil {
			return err
		}
		gone = append(gone, m)
	}
	s.remove(gone, len(gone) > 1)
	return nil
}

// remove deletes messages of one channel and sends the events.
func (s *Server) remove(gone []*message, bulk bool) {
	if len(gone) == 0 {
		return
	}
	c := gone[0].channel
	ids := make([]string, len(gone))
	for i, m := range gone {
		m.Deleted = true
		ids[i] = m.ID
	}
	told := func(kind string, fields map[string]any) {
		fields["channel_id"] = c.ID
		if c.guild != nil {
			fields["guild_id"] = c.GuildID
		}
		s.dispatch(kind, func(ss *session) any {
			if !s.receivesMessages(ss, c) {
				return nil
			}
			return fields
		})
	}
	if bulk {
		told("MESSAGE_DELETE_BULK", map[string]any{"ids": ids})
		return
	}
	for _, id := range ids {
		told("MESSAGE_DELETE", map[string]any{"id": id})
	}
}

func (s *Server) message(channelID, messageID string) (*message, error) {
	c, err := s.channel(channelID)
	if err != nil {
		return nil, err
	}
	m := c.byID[messageID]
	if m == nil || m.Deleted {
		return nil, fmt.Errorf("discord: there is no message %q in channel %s", messageID, c.ID)
	}
	return m, nil
}

// messageJSON returns the message as seen by viewer. content is true if the viewer may read the content of other users'
// messages in guilds. https://discord.com/developers/docs/events/gateway#message-content-intent
func (s *Server) messageJSON(m *message, viewer *account, content bool) map[string]any {
	text := m.Text
	visible := content || m.channel.guild == nil || m.author == viewer || slices.Contains(m.Mentions, viewer.ID)
	if !visible {
		text = ""
	}
	j := map[string]any{
		"id":               m.ID,
		"channel_id":       m.ChannelID,
		"type":             0,
		"author":           m.author.json(),
		"content":          text,
		"timestamp":        formatTime(m.At),
		"edited_timestamp": nil,
		"tts":              false,
		"mention_everyone": m.MentionEveryone,
		"mentions":         s.mentionsJSON(m),
		"mention_roles":    append([]string{}, m.MentionRoles...),
		"components":       []any{},
		"pinned":           false,
	}
	m.addContent(j, visible)
	if !m.EditedAt.IsZero() {
		j["edited_timestamp"] = formatTime(m.EditedAt)
	}
	if m.Nonce != "" {
		j["nonce"] = m.Nonce
	}
	s.addReference(j, m, viewer, content)
	maps.Copy(j, m.fields)
	return j
}

func (s *Server) mentionsJSON(m *message) []any {
	mentions := []any{}
	for _, id := range m.Mentions {
		u := s.users[id].json()
		if g := m.channel.guild; g != nil && g.members[id] != nil {
			u["member"] = g.members[id].partial()
		}
		mentions = append(mentions, u)
	}
	return mentions
}

// allowedMentions holds the allowed_mentions of a message.
// https://discord.com/developers/docs/resources/message#allowed-mentions-object
type allowedMentions struct {
	Parse       []string `json:"parse"`
	Roles       jsonIDs  `json:"roles"`
	Users       jsonIDs  `json:"users"`
	RepliedUser bool     `json:"replied_user"`
}

func (a *allowedMentions) everyone() bool { return a == nil || slices.Contains(a.Parse, "everyone") }

func (a *allowedMentions) user(id string) bool {
	return a == nil || slices.Contains(a.Parse, "users") || slices.Contains(a.Users, id)
}

func (a *allowedMentions) role(id string) bool {
	return a == nil || slices.Contains(a.Parse, "roles") || slices.Contains(a.Roles, id)
}

// mentionPattern finds the mentions in a text: <@user>, <@!user>, <@&role>, @everyone and @here.
// https://discord.com/developers/docs/reference#message-formatting
var mentionPattern = regexp.MustCompile(`<@([!&]?)([0-9]{1,20})>|@everyone|@here`)

// mention sets the mentions and pings of a message. A nil a allows all mentions, as for a user's message.
func (s *Server) mention(m *message, a *allowedMentions, quiet bool) {
	m.Mentions, m.MentionRoles, m.MentionEveryone = nil, nil, false
	c, pings := m.channel, map[string]bool{}
	mentionsAll := s.hasPermission(c, m.author, MentionEveryone) && c.guild != nil
	add := func(list *[]string, id string) {
		if !slices.Contains(*list, id) {
			*list = append(*list, id)
		}
	}
	for _, found := range mentionPattern.FindAllStringSubmatch(m.Text, -1) {
		sign, id := found[1], found[2]
		switch {
		case id == "":
			m.MentionEveryone = m.MentionEveryone || mentionsAll && a.everyone()
		case sign == "&":
			if c.guild == nil || c.guild.roles[id] == nil || id == c.GuildID || !a.role(id) ||
				!c.guild.roles[id].Mentionable && !mentionsAll {
				continue
			}
			add(&m.MentionRoles, id)
		case s.users[id] != nil && a.user(id):
			add(&m.Mentions, id)
		}
	}
	if m.parent != nil && !quiet && (a == nil || a.RepliedUser) {
		add(&m.Mentions, m.parent.author.ID)
	}
	for _, id := range m.Mentions {
		pings[id] = s.hasPermission(c, s.users[id], ViewChannel)
	}
	if c.guild != nil {
		for id, member := range c.guild.members {
			if m.MentionEveryone || slices.ContainsFunc(m.MentionRoles, func(r string) bool { return slices.Contains(member.roles, r) }) {
				pings[id] = s.hasPermission(c, member.user, ViewChannel)
			}
		}
	}
	m.Pings = nil
	for id, sees := range pings {
		if sees && id != m.author.ID {
			m.Pings = append(m.Pings, id)
		}
	}
	slices.SortFunc(m.Pings, func(x, y string) int { return cmp.Or(older(x, y), strings.Compare(x, y)) })
}
