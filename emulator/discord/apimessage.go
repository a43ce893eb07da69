package discord

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Channels and messages over HTTP: https://discord.com/developers/docs/resources/channel and
// https://discord.com/developers/docs/resources/message

// getChannel implements https://discord.com/developers/docs/resources/channel#get-channel
func (s *Server) getChannel(c *call) answer {
	ch, a := s.channelFor(c, ViewChannel)
	if !a.ok() {
		return a
	}
	return success(s.channelJSON(ch, c.bot))
}

// typing implements https://discord.com/developers/docs/resources/channel#trigger-typing-indicator
func (s *Server) typing(c *call) answer {
	if _, a := s.channelFor(c, SendMessages); !a.ok() {
		return a
	}
	return done
}

// messageFor returns a message as seen by the bot over HTTP. The content depends on the app's enabled intents, not on
// the session's. https://discord.com/developers/docs/events/gateway#http-restrictions
func (s *Server) messageFor(m *message, c *call) map[string]any {
	return s.messageJSON(m, c.bot, c.bot.privileged&IntentMessageContent != 0)
}

// getMessages implements https://discord.com/developers/docs/resources/message#get-channel-messages
func (s *Server) getMessages(c *call) answer {
	ch, a := s.channelFor(c, ViewChannel)
	if !a.ok() {
		return a
	}
	limit, a := c.number("limit", 50, 1, 100)
	if !a.ok() {
		return a
	}
	var from uint64
	var way string
	for _, name := range []string{"around", "before", "after"} {
		id, a := c.snowflake(name)
		switch {
		case !a.ok():
			return a
		case !c.r.URL.Query().Has(name):
		case way != "":
			return invalid(name, "MUTUALLY_EXCLUSIVE", "Only one of around, before and after may be passed.")
		default:
			from, way = id, name
		}
	}
	page := []any{}
	if !s.hasPermission(ch, c.bot, ReadMessageHistory) {
		return success(page)
	}
	var all []*message // oldest first
	for _, m := range ch.messages {
		if !m.Deleted {
			all = append(all, m)
		}
	}
	at, found := slices.BinarySearchFunc(all, from, func(m *message, id uint64) int {
		switch n := number(m.ID); {
		case n < id:
			return -1
		case n > id:
			return 1
		}
		return 0
	})
	var first, end int
	switch way {
	case "":
		first, end = len(all)-limit, len(all)
	case "before":
		first, end = at-limit, at
	case "after":
		if found {
			at++
		}
		first, end = at, at+limit
	case "around":
		first = at - limit/2
		end = first + limit
	}
	all = all[min(max(first, 0), len(all)):min(end, len(all))]
	for _, m := range slices.Backward(all) {
		page = append(page, s.messageFor(m, c))
	}
	return success(page)
}

// find returns a message of the path's channel.
func (s *Server) find(c *call, p Permissions) (*message, answer) {
	ch, a := s.channelFor(c, p)
	if !a.ok() {
		return nil, a
	}
	m := ch.byID[c.r.PathValue("message")]
	if m == nil || m.Deleted {
		return nil, unknownMessage
	}
	return m, answer{}
}

// getMessage implements https://discord.com/developers/docs/resources/message#get-channel-message
func (s *Server) getMessage(c *call) answer {
	m, a := s.find(c, ViewChannel)
	if !a.ok() {
		return a
	}
	if !s.hasPermission(m.channel, c.bot, ReadMessageHistory) {
		return missingAccess
	}
	return success(s.messageFor(m, c))
}

// form is the body of a request that creates or edits a message.
type form struct {
	Content         *string          `json:"content"`
	Nonce           any              `json:"nonce"`
	EnforceNonce    bool             `json:"enforce_nonce"`
	TTS             bool             `json:"tts"`
	AllowedMentions *json.RawMessage `json:"allowed_mentions"`
	Reference       *struct {
		Type            int    `json:"type"`
		MessageID       jsonID `json:"message_id"`
		ChannelID       jsonID `json:"channel_id"`
		GuildID         jsonID `json:"guild_id"`
		FailIfNotExists *bool  `json:"fail_if_not_exists"`
	} `json:"message_reference"`

	// Unsupported fields.
	Embeds      []any `json:"embeds"`
	Components  []any `json:"components"`
	StickerIDs  []any `json:"sticker_ids"`
	Attachments []any `json:"attachments"`
	Poll        any   `json:"poll"`
}

// read decodes and checks a form.
func (f *form) read(c *call) (text string, mentions *allowedMentions, a answer) {
	if a = c.decode(f); !a.ok() {
		return "", nil, a
	}
	for name, there := range map[string]bool{
		"embeds":      len(f.Embeds) > 0,
		"components":  len(f.Components) > 0,
		"sticker_ids": len(f.StickerIDs) > 0,
		"attachments": len(f.Attachments) > 0,
		"poll":        f.Poll != nil,
		"tts":         f.TTS,
	} {
		if there {
			return "", nil, invalid(name, "NOT_SERVED", "This fake of Discord supports only text messages.")
		}
	}
	if f.Content != nil {
		if utf8.RuneCountInString(*f.Content) > maxText {
			return "", nil, tooLong("content", maxText)
		}
		text = strings.TrimSpace(*f.Content)
	}
	if f.AllowedMentions != nil {
		mentions, a = readAllowed(*f.AllowedMentions)
	}
	return text, mentions, a
}

// maxAllowed is the largest number of users or roles in allowed_mentions.
const maxAllowed = 100

func readAllowed(raw json.RawMessage) (*allowedMentions, answer) {
	var m allowedMentions
	if json.Unmarshal(raw, &m) != nil {
		return nil, invalid("allowed_mentions", "BASE_TYPE_BAD_TYPE", "Could not interpret this value.")
	}
	for i, kind := range m.Parse {
		if kind != "users" && kind != "roles" && kind != "everyone" {
			return nil, invalid(fmt.Sprint("allowed_mentions.parse.", i), "BASE_TYPE_CHOICES",
				"Value must be one of ('users', 'everyone', 'roles').")
		}
	}
	for name, ids := range map[string][]string{"users": m.Users, "roles": m.Roles} {
		if len(ids) > maxAllowed {
			return nil, invalid("allowed_mentions."+name, "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 100 in length.")
		}
		if len(ids) > 0 && slices.Contains(m.Parse, name) {
			return nil, invalid("allowed_mentions", "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE",
				fmt.Sprintf(`parse:["%s"] and %s: [ids...] are mutually exclusive.`, name, name))
		}
		for i, id := range ids {
			if _, err := snowflake(id); err != nil {
				return nil, invalid(fmt.Sprintf("allowed_mentions.%s.%d", name, i), "NUMBER_TYPE_COERCE", fmt.Sprintf("Value %q is not snowflake.", id))
			}
		}
	}
	return &m, answer{}
}

// maxNonce is the largest number of characters in a nonce.
const maxNonce = 25

// nonce returns the form's nonce as text.
func (f *form) nonce() (string, answer) {
	var nonce string
	switch n := f.Nonce.(type) {
	case nil:
	case string:
		nonce = n
	case float64:
		nonce = fmt.Sprintf("%.0f", n)
	default:
		return "", invalid("nonce", "BASE_TYPE_BAD_TYPE", "Could not interpret this value.")
	}
	if utf8.RuneCountInString(nonce) > maxNonce {
		return "", tooLong("nonce", maxNonce)
	}
	return nonce, answer{}
}

// createMessage implements https://discord.com/developers/docs/resources/message#create-message
func (s *Server) createMessage(c *call) answer {
	ch, a := s.channelFor(c, SendMessages)
	if !a.ok() {
		return a
	}
	if !ch.hasMessages() {
		return refuse(http.StatusBadRequest, 50008, "Cannot send messages in a non-text channel")
	}
	var f form
	text, mentions, a := f.read(c)
	if !a.ok() {
		return a
	}
	nonce, a := f.nonce()
	if !a.ok() {
		return a
	}
	if text == "" {
		return refuse(http.StatusBadRequest, 50006, "Cannot send an empty message")
	}
	if ch.guild == nil {
		if a := s.checkDirectMessage(ch, c.bot); !a.ok() {
			return a
		}
	}
	now := s.now()
	if nonce != "" && f.EnforceNonce {
		if n, ok := c.bot.nonces[nonce]; ok && now.Sub(n.at) < s.options.timing.Nonce {
			return success(s.messageFor(n.message, c))
		}
	}
	p := post{channel: ch, from: c.bot, text: text, allowed: mentions, nonce: nonce, via: ViaAPI}
	if p.parent, a = s.reference(&f, ch, c.bot); !a.ok() {
		return a
	}
	m := s.publish(p)
	if nonce != "" {
		c.bot.rememberNonce(nonce, m, now.Add(-s.options.timing.Nonce))
	}
	return success(s.messageFor(m, c))
}

// rememberNonce stores the message of a nonce, and removes nonces of messages before since.
func (a *account) rememberNonce(nonce string, m *message, since time.Time) {
	for key, old := range a.nonces {
		if old.at.Before(since) {
			delete(a.nonces, key)
		}
	}
	a.nonces[nonce] = nonceEntry{m, m.At}
}

// checkDirectMessage refuses a direct message if the recipient blocks messages from the bot.
func (s *Server) checkDirectMessage(ch *channel, bot *account) answer {
	for _, u := range ch.users {
		if u == bot {
			continue
		}
		if u.closed {
			return refuse(http.StatusForbidden, 50007, "Cannot send messages to this user")
		}
		if s.shareGuild(u, bot) {
			return answer{}
		}
	}
	return refuse(http.StatusForbidden, 50278, "Cannot send messages to this user due to having no mutual guilds")
}

// reference returns the id of the answered message. The id is empty without an answered message, and if the answered
// message is missing and may be missing.
func (s *Server) reference(f *form, ch *channel, bot *account) (string, answer) {
	r := f.Reference
	if r == nil {
		return "", answer{}
	}
	const field = "message_reference"
	switch {
	case r.Type != 0:
		return "", invalid(field+".type", "NOT_SERVED", "This fake of Discord supports no forwards.")
	case r.MessageID == "":
		return "", invalid(field+".message_id", "BASE_TYPE_REQUIRED", "This field is required")
	case r.ChannelID != "" && string(r.ChannelID) != ch.ID:
		return "", invalid(field, "REPLIES_CANNOT_REFERENCE_OTHER_CHANNEL", "Cannot reply to a message in another channel")
	case r.GuildID != "" && string(r.GuildID) != ch.GuildID:
		return "", invalid(field, "REPLIES_CANNOT_REFERENCE_OTHER_CHANNEL", "Cannot reply to a message in another guild")
	case !s.hasPermission(ch, bot, ReadMessageHistory):
		return "", refuse(http.StatusForbidden, 160002, "Cannot reply without permission to read message history")
	}
	if m := ch.byID[string(r.MessageID)]; m != nil && !m.Deleted {
		return m.ID, answer{}
	}
	if r.FailIfNotExists == nil || *r.FailIfNotExists {
		return "", invalid(field, "REPLIES_UNKNOWN_MESSAGE", "Unknown message")
	}
	return "", answer{}
}

// editMessage implements https://discord.com/developers/docs/resources/message#edit-message
func (s *Server) editMessage(c *call) answer {
	m, a := s.find(c, ViewChannel)
	if !a.ok() {
		return a
	}
	if m.author != c.bot {
		return refuse(http.StatusForbidden, 50005, "Cannot edit a message authored by another user")
	}
	var f form
	text, mentions, a := f.read(c)
	if !a.ok() {
		return a
	}
	if f.Content == nil {
		return success(s.messageFor(m, c))
	}
	if text == "" {
		return refuse(http.StatusBadRequest, 50006, "Cannot send an empty message")
	}
	s.edit(m, text, mentions)
	return success(s.messageFor(m, c))
}

// deleteMessage implements https://discord.com/developers/docs/resources/message#delete-message
func (s *Server) deleteMessage(c *call) answer {
	m, a := s.find(c, ViewChannel)
	if !a.ok() {
		return a
	}
	reason, a := c.reason()
	if !a.ok() {
		return a
	}
	if m.author != c.bot {
		if m.channel.guild == nil {
			return refuse(http.StatusForbidden, 50003, "Cannot execute action on a DM channel")
		}
		if !s.hasPermission(m.channel, c.bot, ManageMessages) {
			return missingPermissions
		}
		options := countOption(1)
		options["channel_id"] = m.channel.ID
		s.recordAudit(m.channel.guild, AuditEntry{
			Action: ActionMessageDelete, ByID: c.bot.ID, TargetID: m.author.ID, Options: options, Reason: reason,
		})
	}
	s.remove([]*message{m}, false)
	return done
}

// bulkAge is the largest age of a message in a bulk deletion.
const bulkAge = 14 * 24 * time.Hour

// bulkDelete implements https://discord.com/developers/docs/resources/message#bulk-delete-messages
func (s *Server) bulkDelete(c *call) answer {
	ch, a := s.channelFor(c, ViewChannel)
	if !a.ok() {
		return a
	}
	if ch.guild == nil {
		return refuse(http.StatusForbidden, 50003, "Cannot execute action on a DM channel")
	}
	if !s.hasPermission(ch, c.bot, ManageMessages) {
		return missingPermissions
	}
	var form struct {
		Messages jsonIDs `json:"messages"`
	}
	if a := c.decode(&form); !a.ok() {
		return a
	}
	reason, a := c.reason()
	if !a.ok() {
		return a
	}
	if len(form.Messages) < 2 || len(form.Messages) > 100 {
		return refuse(http.StatusBadRequest, 50016, "You can only bulk delete between 2 and 100 messages.")
	}
	var gone []*message
	oldest := number(IDAt(s.now().Add(-bulkAge)))
	for i, id := range form.Messages {
		n, err := snowflake(id)
		switch {
		case err != nil:
			return invalid(fmt.Sprint("messages.", i), "NUMBER_TYPE_COERCE", fmt.Sprintf("Value %q is not snowflake.", id))
		case slices.Contains(form.Messages[:i], id):
			return invalid("messages", "BASE_TYPE_DUPLICATE", "Duplicate message ids.")
		case n < oldest:
			return refuse(http.StatusBadRequest, 50034, "You can only bulk delete messages that are under 14 days old.")
		}
		if m := ch.byID[id]; m != nil && !m.Deleted {
			gone = append(gone, m)
		}
	}
	s.recordAudit(ch.guild, AuditEntry{
		Action: ActionMessageBulkDelete, ByID: c.bot.ID, TargetID: ch.ID, Options: countOption(len(gone)), Reason: reason,
	})
	s.remove(gone, true)
	return done
}
