package playground

import (
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"parley.internal/emulator/discord"
)

// Largest numbers of characters in a message: of a user without a subscription, and of a user with a subscription, which
// is the largest of all (https://discord.com/developers/docs/resources/message#create-message).
const (
	maxDiscordText      = 2000
	maxDiscordNitroText = 4000
)

// Largest numbers of parts of a message (https://discord.com/developers/docs/resources/message#create-message), and of
// messages in a bulk deletion.
const (
	maxFiles    = 10
	maxStickers = 3
	maxAnswers  = 10
	maxEmbeds   = 10
	maxBulk     = 100
)

type discordMessage struct {
	User        string              `json:"user"`
	Text        string              `json:"text"`
	ReplyTo     string              `json:"replyTo"`
	Ping        *bool               `json:"ping"`
	Attachments []discordAttachment `json:"attachments"`
	Stickers    []discordSticker    `json:"stickers"`
	Embeds      []discord.Embed     `json:"embeds"`
	Poll        *discordPoll        `json:"poll"`
	Forward     *struct {
		Channel string `json:"channel"`
		Message string `json:"message"`
	} `json:"forward"`
	Fields map[string]any `json:"fields"`
	Typed  bool           `json:"typed"`
}

type discordAttachment struct {
	ID          string  `json:"id"`
	URL         string  `json:"url"`
	Name        string  `json:"name"`
	ContentType string  `json:"contentType"`
	Size        int     `json:"size"`
	Seconds     float64 `json:"seconds"`
}

type discordSticker struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type discordPoll struct {
	Question string   `json:"question"`
	Answers  []string `json:"answers"`
}

// discordSaid is a message as listed.
type discordSaid struct {
	ID              string              `json:"id"`
	Channel         string              `json:"channel"`
	Guild           string              `json:"guild"`
	User            string              `json:"user"`
	Name            string              `json:"name"`
	Bot             bool                `json:"bot"`
	Text            string              `json:"text"`
	ReplyTo         string              `json:"replyTo"`
	Nonce           string              `json:"nonce"`
	Mentions        []string            `json:"mentions"`
	MentionRoles    []string            `json:"mentionRoles"`
	MentionEveryone bool                `json:"mentionEveryone"`
	Pings           []string            `json:"pings"`
	Attachments     []discordAttachment `json:"attachments"`
	Stickers        []discordSticker    `json:"stickers"`
	Embeds          []discord.Embed     `json:"embeds"`
	Poll            *discordPoll        `json:"poll"`
	Via             string              `json:"via"`
	At              time.Time           `json:"at"`
	EditedAt        time.Time           `json:"editedAt,omitzero"`
	Deleted         bool                `json:"deleted"`
}

func toDiscordSaid(m discord.Message) discordSaid {
	to := discordSaid{
		ID: m.ID, Channel: m.ChannelID, Guild: m.GuildID, User: m.Author.ID, Name: nameOf(m.Author), Bot: m.Author.Bot,
		Text: m.Text, ReplyTo: m.ReplyTo, Nonce: m.Nonce, Mentions: m.Mentions, MentionRoles: m.MentionRoles,
		MentionEveryone: m.MentionEveryone, Pings: m.Pings, Embeds: m.Embeds, Poll: (*discordPoll)(m.Poll),
		Via: m.Via, At: m.At, EditedAt: m.EditedAt, Deleted: m.Deleted,
	}
	for _, a := range m.Attachments {
		to.Attachments = append(to.Attachments, discordAttachment(a))
	}
	for _, s := range m.Stickers {
		to.Stickers = append(to.Stickers, discordSticker(s))
	}
	return to
}

func (a discordAPI) messages(r *http.Request, c discord.Channel) (any, error) {
	author := r.URL.Query().Get("user")
	return list(r, a.srv.Await, func(n int) []discord.Message { return a.srv.SaidFrom(c.ID, n) }, func(m discord.Message) (discordSaid, bool) {
		return toDiscordSaid(m), author == "" || author == m.Author.ID
	})
}

func (a discordAPI) say(r *http.Request, c discord.Channel) (any, error) {
	var in discordMessage
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if err := required("user", in.User); err != nil {
		return nil, err
	}
	from, ok := a.srv.User(in.User)
	if !ok {
		return nil, invalid("user", "there is no user %q on Discord", in.User)
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	m, err := a.srv.Say(c.ID, from.ID, in.Text, in.options()...)
	if err != nil {
		return nil, refused("text", err)
	}
	return toDiscordSaid(m), nil
}

// check returns an error for the first part of the message that Discord does not send. It cleans a typed text.
func (in *discordMessage) check() error {
	most := maxDiscordNitroText
	if in.Typed {
		in.Text, most = cleanText(in.Text, "\n\t"), maxDiscordText
	}
	if len(in.Attachments)+len(in.Stickers)+len(in.Embeds)+len(in.Fields) == 0 && in.Poll == nil && in.Forward == nil {
		if err := checkText(in.Text, most); err != nil {
			return err
		}
	}
	if err := checkLength("text", in.Text, most); err != nil {
		return err
	}
	for field, n := range map[string][2]int{
		"attachments": {len(in.Attachments), maxFiles}, "stickers": {len(in.Stickers), maxStickers}, "embeds": {len(in.Embeds), maxEmbeds},
	} {
		if n[0] > n[1] {
			return invalid(field, "are %d; at most %d", n[0], n[1])
		}
	}
	for i, file := range in.Attachments {
		if err := required(fmt.Sprintf("attachments.%d.name", i), file.Name); err != nil {
			return err
		}
		if file.Size < 0 || file.Seconds < 0 {
			return invalid(fmt.Sprintf("attachments.%d", i), "size and seconds must not be negative")
		}
	}
	for i, sticker := range in.Stickers {
		if err := required(fmt.Sprintf("stickers.%d.name", i), sticker.Name); err != nil {
			return err
		}
	}
	if in.Poll != nil {
		if err := required("poll.question", in.Poll.Question); err != nil {
			return err
		}
		if n := len(in.Poll.Answers); n < 1 || n > maxAnswers {
			return invalid("poll.answers", "are %d; from 1 to %d", n, maxAnswers)
		}
	}
	return nil
}

// options returns the options of a checked message.
func (in *discordMessage) options() []discord.SayOption {
	var options []discord.SayOption
	if in.Typed {
		options = append(options, discord.AsTyped())
	}
	if in.ReplyTo != "" {
		options = append(options, discord.ReplyingTo(in.ReplyTo))
	}
	if in.Ping != nil && !*in.Ping {
		options = append(options, discord.WithoutPing())
	}
	var files []discord.Attachment
	for _, file := range in.Attachments {
		files = append(files, discord.Attachment(file))
	}
	var stickers []discord.Sticker
	for _, sticker := range in.Stickers {
		stickers = append(stickers, discord.Sticker(sticker))
	}
	if in.Poll != nil {
		options = append(options, discord.WithPoll(discord.Poll(*in.Poll)))
	}
	if in.Forward != nil {
		options = append(options, discord.Forwarding(in.Forward.Channel, in.Forward.Message))
	}
	return append(options, discord.WithAttachments(files...), discord.WithStickers(stickers...), discord.WithEmbeds(in.Embeds...), discord.WithFields(in.Fields))
}

// unknownMessage refuses a message id of the path, for an error of the fake.
func unknownMessage(err error) error {
	return refuse(http.StatusNotFound, "id", "%s", refused("", err).Reason)
}

func (a discordAPI) edit(r *http.Request, c discord.Channel) (any, error) {
	var in struct {
		Text string `json:"text"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if err := checkText(in.Text, maxDiscordNitroText); err != nil {
		return nil, err
	}
	m, err := a.srv.Edit(c.ID, r.PathValue("id"), in.Text)
	if err != nil {
		return nil, unknownMessage(err)
	}
	return toDiscordSaid(m), nil
}

func (a discordAPI) delete(r *http.Request, c discord.Channel) (any, error) {
	if err := a.srv.Delete(c.ID, r.PathValue("id")); err != nil {
		return nil, unknownMessage(err)
	}
	return nil, nil
}

func (a discordAPI) bulkDelete(r *http.Request, c discord.Channel) (any, error) {
	var in struct {
		Messages []string `json:"messages"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if n := len(in.Messages); n < 2 || n > maxBulk {
		return nil, invalid("messages", "are %d; from 2 to %d", n, maxBulk)
	}
	if err := a.srv.Delete(c.ID, in.Messages...); err != nil {
		return nil, refused("messages", err)
	}
	return nil, nil
}

// checkText returns an error if a text is empty, or longer than most characters.
func checkText(text string, most int) error {
	if strings.TrimSpace(text) == "" {
		return invalid("text", "is empty")
	}
	return checkLength("text", text, most)
}

// checkLength returns an error if a text has more than most characters.
func checkLength(field, text string, most int) error {
	if n := utf8.RuneCountInString(text); n > most {
		return invalid(field, "has %d characters; at most %d", n, most)
	}
	return nil
}

// cleanText replaces control characters by spaces, except the characters of keep, and trims the text.
func cleanText(text, keep string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && !strings.ContainsRune(keep, r) {
			return ' '
		}
		return r
	}, text))
}
