package discord

import (
	"cmp"
	"fmt"
	"net/url"
	"path"
	"strings"
)

// Content beside the text: https://discord.com/developers/docs/resources/message and
// https://discord.com/developers/docs/resources/poll

// Attachment is a file of a message.
type Attachment struct {
	// ID is a snowflake. Say fills in an empty ID, and an empty URL.
	ID, URL     string
	Name        string
	ContentType string
	Size        int // bytes
	// Seconds is the duration of a voice message, or 0 for any other file.
	Seconds float64
}

// Sticker is a sticker of a message. Say fills in an empty ID.
type Sticker struct{ ID, Name string }

// Poll is a poll of a message, with its answers in order.
type Poll struct {
	Question string
	Answers  []string
}

// WithAttachments adds files to the message.
func WithAttachments(all ...Attachment) SayOption { return func(p *post) { p.attachments = all } }

// WithStickers adds stickers to the message.
func WithStickers(all ...Sticker) SayOption { return func(p *post) { p.stickers = all } }

// WithPoll makes the message a poll.
func WithPoll(poll Poll) SayOption { return func(p *post) { p.poll = &poll } }

// Embed is an embed of a message in Discord's JSON form, such as the preview of a link.
// https://discord.com/developers/docs/resources/message#embed-object
type Embed map[string]any

// WithEmbeds adds embeds to the message. Bots without access to the content do not get the embeds.
func WithEmbeds(all ...Embed) SayOption { return func(p *post) { p.embeds = all } }

// WithFields adds fields to the message object, and replaces fields of the same names, for parts of a message without an
// option of their own: "type", "flags", "components" and so on. The fields have no other effect. Every bot with access
// to the channel gets the fields.
func WithFields(fields map[string]any) SayOption { return func(p *post) { p.fields = fields } }

// Forwarding makes the message a forward of an existing message, from any channel.
func Forwarding(channelID, messageID string) SayOption {
	return func(p *post) { p.forwarded = [2]string{channelID, messageID} }
}

// forward returns the message forwarded by a post, or nil.
func (s *Server) forward(p post) (*message, error) {
	if p.forwarded == [2]string{} {
		return nil, nil
	}
	m, err := s.message(p.forwarded[0], p.forwarded[1])
	if err != nil {
		return nil, fmt.Errorf("discord: forward: %w", err)
	}
	return m, nil
}

// attach copies the content beside the text of a post to its message.
func (s *Server) attach(m *message, p post) {
	for _, a := range p.attachments {
		a.ID = cmp.Or(a.ID, s.newID())
		a.URL = cmp.Or(a.URL, "https://cdn.discordapp.com/attachments/"+path.Join(m.ChannelID, a.ID, url.PathEscape(a.Name))+"?ex=1&is=1&hm=1&")
		m.Attachments = append(m.Attachments, a)
	}
	for _, sticker := range p.stickers {
		sticker.ID = cmp.Or(sticker.ID, s.newID())
		m.Stickers = append(m.Stickers, sticker)
	}
	m.Poll, m.Embeds, m.fields = p.poll, p.embeds, p.fields
}

// addContent adds the content beside the text to the JSON of a message. visible is false if the viewer may not read the
// content.
func (m *message) addContent(j map[string]any, visible bool) {
	attachments, stickers, embeds := []any{}, []any{}, append([]Embed{}, m.Embeds...)
	flags := 0
	for _, a := range m.Attachments {
		if a.Seconds > 0 {
			flags |= 1 << 13 // IS_VOICE_MESSAGE
		}
		attachments = append(attachments, a.json())
	}
	for _, sticker := range m.Stickers {
		stickers = append(stickers, map[string]any{"id": sticker.ID, "name": sticker.Name, "format_type": 1})
	}
	if !visible {
		attachments, embeds = []any{}, []Embed{}
	}
	j["attachments"], j["embeds"], j["flags"] = attachments, embeds, flags
	if len(stickers) > 0 {
		j["sticker_items"] = stickers
	}
	if m.Poll != nil && visible {
		j["poll"] = m.Poll.json()
	}
}

// addReference adds the answered or forwarded message to the JSON of a message, as seen by viewer (see messageJSON).
// https://discord.com/developers/docs/resources/message#message-reference-object
func (s *Server) addReference(j map[string]any, m *message, viewer *account, content bool) {
	refer := func(kind int, channel, guild, id string) {
		reference := map[string]any{"type": kind, "message_id": id, "channel_id": channel}
		if guild != "" {
			reference["guild_id"] = guild
		}
		j["message_reference"] = reference
	}
	if f := m.forward; f != nil {
		refer(1, f.ChannelID, f.GuildID, f.ID)
		j["message_snapshots"] = []any{s.snapshot(f, viewer, content)}
		j["flags"] = 1 << 14 // HAS_SNAPSHOT
	}
	if m.ReplyTo == "" {
		return
	}
	j["type"] = 19
	refer(0, m.ChannelID, m.GuildID, m.ReplyTo)
	j["referenced_message"] = nil
	if m.parent != nil && !m.parent.Deleted {
		parent := s.messageJSON(m.parent, viewer, content)
		delete(parent, "referenced_message") // only one level of messages is included
		j["referenced_message"] = parent
	}
}

func (a Attachment) json() map[string]any {
	j := map[string]any{"id": a.ID, "filename": a.Name, "size": a.Size, "url": a.URL, "proxy_url": a.URL}
	if a.ContentType != "" {
		j["content_type"] = a.ContentType
	}
	if strings.HasPrefix(a.ContentType, "image/") {
		j["width"], j["height"] = 640, 480
	}
	if a.Seconds > 0 {
		j["duration_secs"], j["waveform"] = a.Seconds, "AAAA"
	}
	return j
}

func (p *Poll) json() map[string]any {
	answers := []any{}
	for i, text := range p.Answers {
		answers = append(answers, map[string]any{"answer_id": i + 1, "poll_media": map[string]any{"text": text}})
	}
	return map[string]any{
		"question": map[string]any{"text": p.Question}, "answers": answers, "expiry": nil,
		"allow_multiselect": false, "layout_type": 1,
	}
}

// snapshot returns the JSON of a forwarded message: a message without author, as the documentation lists its fields.
// https://discord.com/developers/docs/resources/message#message-snapshot-object
func (s *Server) snapshot(m *message, viewer *account, content bool) map[string]any {
	whole := s.messageJSON(m, viewer, content)
	j := map[string]any{}
	for _, field := range []string{
		"type", "content", "embeds", "attachments", "timestamp", "edited_timestamp", "flags", "mentions", "mention_roles",
		"sticker_items", "components",
	} {
		if v, ok := whole[field]; ok {
			j[field] = v
		}
	}
	return map[string]any{"message": j}
}
