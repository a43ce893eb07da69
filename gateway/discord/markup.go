package discord

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"
	"time"

	"parley.internal/shared/answer"
	"parley.internal/shared/chattext"
	"parley.internal/shared/event"
)

// markupPattern matches Discord's markup of a user, role, channel, emoji, time, slash command or guild page at the
// beginning of a text (https://discord.com/developers/docs/reference#message-formatting).
var markupPattern = regexp.MustCompile(`^<(?:` +
	`(@!?|@&|#)([0-9]{1,20})` + // 1, 2: user, role or channel
	`|a?:([A-Za-z0-9_]{1,32}):[0-9]{1,20}` + // 3: custom emoji
	`|t:(-?[0-9]{1,13})(?::[A-Za-z])?` + // 4: seconds since 1970
	`|/([^\n:<>]{1,100}):[0-9]{1,20}` + // 5: slash command with subcommands
	`|id:(customize|browse|guide|linked-roles)(?::[0-9]{1,20})?` + // 6: page of the guild
	`)>`)

// guildPages holds the pages' names in Discord's client
// (https://discord.com/developers/docs/reference#message-formatting-guild-navigation-types).
var guildPages = map[string]string{
	"customize": "Channels & Roles", "browse": "Browse Channels", "guide": "Server Guide", "linked-roles": "Linked Roles",
}

const (
	// maxTimestamp is the largest distance of a displayed time from 1970, in seconds. Discord's client shows the markup of
	// a larger value (https://tc39.es/ecma262/#sec-time-values-and-time-range).
	maxTimestamp = 8_640_000_000_000
	// readableTime is the format of a time in a text.
	readableTime = "2006-01-02 15:04 UTC"
)

// readable converts the markup of one message to a text that people can read on any platform.
type readable struct {
	converter
	location
	users      map[string]string // display names by id
	botIsNamed bool              // the converted text mentions the bot
}

func (c converter) readable(in location, mentions []mention) *readable {
	r := &readable{converter: c, location: in, users: map[string]string{}}
	for _, u := range mentions {
		nick := ""
		if u.Member != nil {
			nick = u.Member.Nick
		}
		r.users[u.ID] = cmp.Or(nick, u.DisplayName())
		if u.ID == c.bot {
			r.botName, r.botUsername = u.DisplayName(), u.Username // newer than the names at the start of the session
		}
	}
	return r
}

// convert replaces the markup in a text. Markup inside code or behind a backslash stays, because Discord's client shows
// it unchanged. The text @Name of a bot's name, typed without choosing the bot from Discord's list, mentions the bot, too.
func (r *readable) convert(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		n := 1
		switch text[i] {
		case '\\':
			n = min(2, len(text)-i)
		case '`':
			n = codeLength(text[i:])
		case '@':
			r.botIsNamed = r.botIsNamed || chattext.MentionAt(text, i, r.botName, r.botUsername)
		case '<':
			if found := markupPattern.FindStringSubmatch(text[i:]); found != nil {
				b.WriteString(r.plain(found))
				i += len(found[0])
				continue
			}
		}
		b.WriteString(text[i : i+n])
		i += n
	}
	return b.String()
}

// codeLength returns the length of the code at the beginning of a text, including its backquotes. Without an end of the
// code, it returns the number of backquotes.
func codeLength(text string) int {
	n := len(text) - len(strings.TrimLeft(text, "`"))
	if n >= len(ticks) {
		if end := strings.Index(text[n:], ticks); end >= 0 {
			return n + end + len(ticks)
		}
		return n
	}
	for i := n; i < len(text); {
		start := strings.IndexByte(text[i:], '`')
		if start < 0 {
			break
		}
		i += start
		run := len(text[i:]) - len(strings.TrimLeft(text[i:], "`"))
		if i += run; run == n {
			return i
		}
	}
	return n
}

// plain returns the text for one match of markupPattern.
func (r *readable) plain(found []string) string {
	kind, id := found[1], found[2]
	switch {
	case kind == "#":
		return "#" + cmp.Or(r.guilds.channelName(id, r.guildID), "unknown-channel")
	case kind == "@&":
		role := r.roles[id]
		if role.Tags.BotID == r.bot && r.bot != "" {
			return r.nameBot()
		}
		return "@" + cmp.Or(strings.TrimPrefix(role.Name, "@"), "unknown-role")
	case kind != "":
		if id == r.bot {
			return r.nameBot()
		}
		return "@" + cmp.Or(r.users[id], "unknown-user")
	case found[3] != "":
		return ":" + found[3] + ":"
	case found[4] != "":
		seconds, err := strconv.ParseInt(found[4], 10, 64)
		if err != nil || seconds > maxTimestamp || seconds < -maxTimestamp {
			return found[0]
		}
		return time.Unix(seconds, 0).UTC().Format(readableTime)
	case found[5] != "":
		return "/" + found[5]
	}
	return guildPages[found[6]]
}

// nameBot records a mention of the bot. The mention shows the name of the bot's account, and not its nickname in the
// guild, so that a rule works in every guild.
func (r *readable) nameBot() string {
	r.botIsNamed = true
	return "@" + cmp.Or(r.botName, "bot")
}

// textOf returns the text of a message for people on any platform: the converted content, then a line for each attachment,
// sticker, poll and forwarded message. It reports whether the content mentions the bot.
func (c converter) textOf(m *message, in location) (text string, mentionsBot bool) {
	r := c.readable(in, m.Mentions)
	lines := r.lines(&m.content)
	mentionsBot = r.botIsNamed
	for _, s := range m.Snapshots {
		forwarded := strings.Join(c.readable(in, s.Message.Mentions).lines(&s.Message), "\n")
		lines = append(lines, "Forwarded: "+cmp.Or(forwarded, "message without text"))
	}
	return strings.Join(lines, "\n"), mentionsBot
}

// lines returns the lines of a message's content. Embeds are used only without other content: otherwise they are
// previews of the links in the text.
func (r *readable) lines(c *content) []string {
	var lines []string
	add := func(line string) {
		if chattext.Trim(line) != "" {
			lines = append(lines, line)
		}
	}
	add(r.convert(c.Content))
	for _, a := range c.Attachments {
		link := a.URL
		if strings.HasPrefix(a.Filename, "SPOILER_") {
			link = "" // another platform would show the hidden file
		}
		add(strings.TrimSpace(a.Filename + " " + link))
	}
	for _, s := range c.Stickers {
		add("Sticker: " + s.Name)
	}
	if c.Poll != nil {
		add(c.Poll.line())
	}
	if len(lines) > 0 {
		return lines
	}
	for _, e := range c.Embeds {
		add(r.convert(e.Title))
		add(r.convert(e.Description))
		add(e.URL)
	}
	return lines
}

// line returns the question and the answers.
func (p *poll) line() string {
	var answers []string
	for _, a := range p.Answers {
		if a.Media.Text != "" {
			answers = append(answers, a.Media.Text)
		} else if a.Media.Emoji != nil {
			answers = append(answers, a.Media.Emoji.Name)
		}
	}
	line := "Poll: " + p.Question.Text
	if len(answers) > 0 {
		line += " (" + strings.Join(answers, " / ") + ")"
	}
	return line
}

// repliesToBot reports whether a message is a reply to a message of the bot's own. A relayed message is another
// person's, although the bot posted it.
func (c converter) repliesToBot(m *message) bool {
	p := m.Parent
	return m.isReply() && p != nil && p.Author != nil && p.Author.ID == c.bot &&
		!answer.WasRelayed(&event.Event{Message: &event.Message{Text: p.Content}})
}
